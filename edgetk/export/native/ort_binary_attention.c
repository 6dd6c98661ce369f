/* edgetk::BinaryLinearAttention for ONNX Runtime: (queries, keys, values) -> attended; attribute numerator.
 *
 * queries, keys (…, N, b), values (…, N, d), float32. EDGETK_ISA in the environment names an instruction set to use.
 */
#include <stdlib.h>
#include <string.h>

#include "binary_attention.h"
#include "ort_library.h"
#include "ort_operator.h"

enum { QUERIES, KEYS, VALUES, INPUTS };

static const char WHO[] = "BinaryLinearAttention";

typedef struct {
  const OrtApi *api;
  int32_t numerator;
  char isa[16]; /* "": the best one */
} kernel;

static OrtStatusPtr create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  char numerator[32] = "";
  size_t size = sizeof numerator;
  OrtStatusPtr status = api->KernelInfoGetAttribute_string(info, "numerator", numerator, &size);
  if (status) return status;
  const int sum = !strcmp(numerator, "sum");
  if (!sum && strcmp(numerator, "own_token")) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "numerator must be own_token or sum", numerator);
  }
  char isa[16];
  status = edgetk_read_isa(api, WHO, isa);
  if (status) return status;
  kernel *made = malloc(sizeof *made);
  if (!made) return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free", "none");
  *made = (kernel){api, sum ? EDGETK_SUM : EDGETK_OWN_TOKEN, ""};
  memcpy(made->isa, isa, sizeof isa);
  *out = made;
  return NULL;
}

static void destroy(void *made) {
  free(made);
}

/* All but the last dimension are the same. */
static int matches(const tensor *a, const tensor *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, (a->rank - 1) * sizeof *a->shape);
}

static OrtStatusPtr compute(void *made, OrtKernelContext *context) {
  const kernel *self = made;
  const OrtApi *api = self->api;
  tensor in[INPUTS];
  for (size_t i = 0; i < INPUTS; ++i) {
    OrtStatusPtr status = edgetk_read_input(api, WHO, context, i, 2, &in[i]);
    if (status) return status;
  }
  const size_t rank = in[VALUES].rank;
  const int64_t *shape = in[VALUES].shape, bits = in[QUERIES].shape[in[QUERIES].rank - 1];
  if (!matches(&in[QUERIES], &in[VALUES]) || !matches(&in[KEYS], &in[VALUES]) || in[KEYS].shape[rank - 1] != bits) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "queries and keys (..., N, b) and values (..., N, d) must match", "other shapes");
  }
  OrtValue *result = NULL;
  float *out = NULL;
  OrtStatusPtr status = api->KernelContext_GetOutput(context, 0, shape, rank, &result);
  if (!status) status = api->GetTensorMutableData(result, (void **)&out);
  if (status) return status;
  edgetk_attention problem = {in[QUERIES].data, in[KEYS].data,    in[VALUES].data, 1,
                              shape[rank - 2],  bits, shape[rank - 1], self->numerator};
  for (size_t i = 0; i + 2 < rank; ++i) problem.heads *= shape[i];
  if (edgetk_binary_attention(&problem, out, NULL, *self->isa ? self->isa : NULL) == EDGETK_NO_MEMORY) {
    return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free for a head", "none");
  }
  return NULL;
}

static const char *name(const OrtCustomOp *op) {
  (void)op;
  return WHO;
}

static size_t inputs(const OrtCustomOp *op) {
  (void)op;
  return INPUTS;
}

const OrtCustomOp edgetk_op_binary_attention = {
    .version = EDGETK_ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = edgetk_on_cpu,
    .GetInputType = edgetk_is_float,
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
