/* edgetk::BinaryLinearAttention for ONNX Runtime: (queries, keys, values) -> attended; attribute numerator.
 *
 * queries, keys (…, N, b), values (…, N, d), float32. EDGETK_ISA in the environment names an instruction set to use.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binary_attention.h"
#include "ort_library.h"

enum { QUERIES, KEYS, VALUES, INPUTS, MAX_RANK = 8 };

typedef struct {
  const OrtApi *api;
  int32_t numerator;
  char isa[16]; /* "": the best one */
} kernel;

typedef struct {
  const float *data;
  int64_t shape[MAX_RANK];
  size_t rank;
} tensor;

static OrtStatusPtr fail(const OrtApi *api, OrtErrorCode code, const char *text, const char *got) {
  char message[256];
  snprintf(message, sizeof message, "edgetk::BinaryLinearAttention: %s, got %s", text, got);
  return api->CreateStatus(code, message);
}

static OrtStatusPtr create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  char numerator[32] = "";
  size_t size = sizeof numerator;
  OrtStatusPtr status = api->KernelInfoGetAttribute_string(info, "numerator", numerator, &size);
  if (status) return status;
  const int sum = !strcmp(numerator, "sum");
  if (!sum && strcmp(numerator, "own_token")) {
    return fail(api, ORT_INVALID_ARGUMENT, "numerator must be own_token or sum", numerator);
  }
  const char *isa = getenv("EDGETK_ISA");
  if (isa && !*isa) isa = NULL;
  const edgetk_attention nothing = {0};
  if (edgetk_binary_attention(&nothing, NULL, NULL, isa) == EDGETK_NO_SUCH_ISA) {
    char text[128];
    snprintf(text, sizeof text, "EDGETK_ISA must be one of those of this processor (%s)", edgetk_isas());
    return fail(api, ORT_INVALID_ARGUMENT, text, isa);
  }
  kernel *made = malloc(sizeof *made);
  if (!made) return fail(api, ORT_FAIL, "memory must be free", "none");
  *made = (kernel){api, sum ? EDGETK_SUM : EDGETK_OWN_TOKEN, ""};
  if (isa) strncpy(made->isa, isa, sizeof made->isa - 1);
  *out = made;
  return NULL;
}

static void destroy(void *made) {
  free(made);
}

static OrtStatusPtr read_input(const OrtApi *api, const OrtKernelContext *context, size_t index, tensor *out) {
  const OrtValue *value = NULL;
  OrtTensorTypeAndShapeInfo *info = NULL;
  OrtStatusPtr status = api->KernelContext_GetInput(context, index, &value);
  if (!status) status = api->GetTensorTypeAndShape(value, &info);
  if (!status) status = api->GetDimensionsCount(info, &out->rank);
  if (!status && (out->rank < 2 || out->rank > MAX_RANK)) {
    char rank[24];
    snprintf(rank, sizeof rank, "%zu", out->rank);
    status = fail(api, ORT_INVALID_ARGUMENT, "inputs must have 2 to 8 dimensions", rank);
  }
  if (!status) status = api->GetDimensions(info, out->shape, out->rank);
  if (!status) status = api->GetTensorMutableData((OrtValue *)value, (void **)&out->data);
  if (info) api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
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
    OrtStatusPtr status = read_input(api, context, i, &in[i]);
    if (status) return status;
  }
  const size_t rank = in[VALUES].rank;
  const int64_t *shape = in[VALUES].shape, bits = in[QUERIES].shape[in[QUERIES].rank - 1];
  if (!matches(&in[QUERIES], &in[VALUES]) || !matches(&in[KEYS], &in[VALUES]) || in[KEYS].shape[rank - 1] != bits) {
    return fail(api, ORT_INVALID_ARGUMENT, "queries and keys (..., N, b) and values (..., N, d) must match", "other shapes");
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
    return fail(api, ORT_FAIL, "memory must be free for a head", "none");
  }
  return NULL;
}

static const char *name(const OrtCustomOp *op) {
  (void)op;
  return "BinaryLinearAttention";
}

static const char *provider(const OrtCustomOp *op) {
  (void)op;
  return NULL; /* the CPU */
}

static ONNXTensorElementDataType type(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

static size_t inputs(const OrtCustomOp *op) {
  (void)op;
  return INPUTS;
}

static size_t outputs(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static OrtCustomOpInputOutputCharacteristic required(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return INPUT_OUTPUT_REQUIRED;
}

static OrtMemType memory(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return OrtMemTypeDefault;
}

const OrtCustomOp edgetk_op_binary_attention = {
    .version = EDGETK_ORT_VERSION,
    .GetName = name,
    .GetExecutionProviderType = provider,
    .GetInputType = type,
    .GetInputTypeCount = inputs,
    .GetOutputType = type,
    .GetOutputTypeCount = outputs,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = required,
    .GetOutputCharacteristic = required,
    .GetInputMemoryType = memory,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
};
