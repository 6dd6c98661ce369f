/* edgetk::LookupLinear for ONNX Runtime: (x, tables, scale, bias) -> y; attributes weighting, temperature, powers, offsets.
 *
 * x (…, K * bits), scale and bias (h) and y (…, h) in float32, tables (K, 2^bits, h) in int8. The last two attributes are the
 * body's alone. EDGETK_ISA in the environment names an instruction set to use.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lookup_linear.h"
#include "ort_library.h"
#include "ort_operator.h"

enum { X, TABLES, SCALE, BIAS, INPUTS };

static const char WHO[] = "LookupLinear";
static const char *const WEIGHTINGS[] = {"p", "l1p", "l1", "one"};

typedef struct {
  const OrtApi *api;
  int32_t weighting;
  float temperature;
  char isa[16]; /* "": the best one */
} kernel;

static OrtStatusPtr create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  char weighting[32] = "", isa[16];
  size_t size = sizeof weighting;
  float temperature = 1.0f;
  OrtStatusPtr status = api->KernelInfoGetAttribute_string(info, "weighting", weighting, &size);
  if (!status) status = api->KernelInfoGetAttribute_float(info, "temperature", &temperature);
  if (!status) status = edgetk_read_isa(api, WHO, isa);
  if (status) return status;
  int32_t found = 0;
  while (found < 4 && strcmp(WEIGHTINGS[found], weighting)) ++found;
  if (found == 4) return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "weighting must be p, l1p, l1 or one", weighting);
  if (!(temperature > 0.0f) || !isfinite(temperature)) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "temperature must be above 0", "another number");
  }
  kernel *made = malloc(sizeof *made);
  if (!made) return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free", "none");
  *made = (kernel){api, found, temperature, ""};
  memcpy(made->isa, isa, sizeof isa);
  *out = made;
  return NULL;
}

static void destroy(void *made) {
  free(made);
}

static int64_t bits_of(int64_t height) {
  int64_t bits = 0;
  while (bits <= EDGETK_MOST_BITS && (int64_t)1 << bits < height) ++bits;
  return bits;
}

static OrtStatusPtr compute(void *made, OrtKernelContext *context) {
  const kernel *self = made;
  const OrtApi *api = self->api;
  tensor in[INPUTS];
  for (size_t i = 0; i < INPUTS; ++i) {
    OrtStatusPtr status = edgetk_read_input(api, WHO, context, i, 1, &in[i]);
    if (status) return status;
  }
  const tensor *x = &in[X], *tables = &in[TABLES];
  const int64_t count = tables->shape[0], height = tables->shape[1], outputs = tables->shape[2];
  const int64_t bits = tables->rank == 3 ? bits_of(height) : 0;
  if (tables->rank != 3 || bits < 1 || bits > EDGETK_MOST_BITS || height != (int64_t)1 << bits) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "tables must be (K, 2^bits, h) with 1 to 16 bits", "another shape");
  }
  if (x->shape[x->rank - 1] != count * bits || in[SCALE].rank != 1 || in[BIAS].rank != 1 || in[SCALE].shape[0] != outputs ||
      in[BIAS].shape[0] != outputs) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "x (..., K * bits), scale and bias (h) must match tables (K, 2^bits, h)",
                       "other shapes");
  }
  const int fine = self->weighting == EDGETK_P || self->weighting == EDGETK_ONE;
  if (count > (fine ? 1032 : 516)) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "tables must be at most 1032 (p, one) or 516, or sums overflow", "more");
  }
  int64_t shape[MAX_RANK], tokens = 1;
  for (size_t i = 0; i + 1 < x->rank; ++i) tokens *= shape[i] = x->shape[i];
  shape[x->rank - 1] = outputs;
  OrtValue *result = NULL;
  void *out = NULL;
  OrtStatusPtr status = api->KernelContext_GetOutput(context, 0, shape, x->rank, &result);
  if (!status) status = api->GetTensorMutableData(result, &out);
  if (status) return status;
  const edgetk_lookup problem = {x->data, tables->data, in[SCALE].data, in[BIAS].data,     tokens,
                                 count,   bits,         outputs,        self->temperature, self->weighting};
  if (edgetk_lookup_linear(&problem, out, NULL, EDGETK_AUTO, *self->isa ? self->isa : NULL) == EDGETK_NO_MEMORY) {
    return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free for a tile of tokens", "none");
  }
  return NULL;
}

static const char *name(const OrtCustomOp *op) {
  (void)op;
  return WHO;
}

static ONNXTensorElementDataType input_type(const OrtCustomOp *op, size_t index) {
  (void)op;
  return index == TABLES ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

static size_t inputs(const OrtCustomOp *op) {
  (void)op;
  return INPUTS;
}

const OrtCustomOp edgetk_op_lookup_linear = {
    .version = EDGETK_ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = edgetk_on_cpu,
    .GetInputType = input_type,
    .GetInputTypeCount = inputs,
    .GetOutputType = edgetk_is_float,
    .GetOutputTypeCount = edgetk_one,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = edgetk_required,
    .GetOutputCharacteristic = edgetk_required,
    .GetInputMemoryType = edgetk_memory,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
};
