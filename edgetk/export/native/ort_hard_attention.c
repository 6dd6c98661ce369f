/* edgetk::HardAttention for ONNX Runtime: (weights, values) -> attended; attributes keep, and kept for the body.
 *
 * weights (..., N, M), values (..., M, d), float32. EDGETK_ISA in the environment names an instruction set to use.
 */
#include <stdlib.h>
#include <string.h>

#include "hard_attention.h"
#include "ort_library.h"
#include "ort_operator.h"

enum { WEIGHTS, VALUES, INPUTS };

static const char WHO[] = "HardAttention";

typedef struct {
  const OrtApi *api;
  int64_t keep;
  char isa[16]; /* "": the best one */
} kernel;

static OrtStatusPtr create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {
  (void)op;
  int64_t keep = 0;
  char isa[16];
  OrtStatusPtr status = api->KernelInfoGetAttribute_int64(info, "keep", &keep);
  if (!status) status = edgetk_read_isa(api, WHO, isa);
  if (status) return status;
  if (keep < 1) return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "keep must be at least 1", "a smaller number");
  kernel *made = malloc(sizeof *made);
  if (!made) return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free", "none");
  *made = (kernel){api, keep, ""};
  memcpy(made->isa, isa, sizeof isa);
  *out = made;
  return NULL;
}

static void destroy(void *made) {
  free(made);
}

static OrtStatusPtr compute(void *made, OrtKernelContext *context) {
  const kernel *self = made;
  const OrtApi *api = self->api;
  tensor in[INPUTS];
  for (size_t i = 0; i < INPUTS; ++i) {
    OrtStatusPtr status = edgetk_read_input(api, WHO, context, i, 2, &in[i]);
    if (status) return status;
  }
  const tensor *weights = &in[WEIGHTS], *values = &in[VALUES];
  const size_t rank = weights->rank;
  if (values->rank != rank || memcmp(weights->shape, values->shape, (rank - 2) * sizeof *values->shape) ||
      weights->shape[rank - 1] != values->shape[rank - 2]) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "weights (..., N, M) and values (..., M, d) must match", "other shapes");
  }
  edgetk_hard_problem problem = {weights->data,           values->data,           NULL, 1, weights->shape[rank - 2],
                                 weights->shape[rank - 1], values->shape[rank - 1], self->keep};
  for (size_t i = 0; i + 2 < rank; ++i) problem.heads *= weights->shape[i];
  in[WEIGHTS].shape[rank - 1] = problem.width;
  OrtValue *result = NULL;
  OrtStatusPtr status = api->KernelContext_GetOutput(context, 0, in[WEIGHTS].shape, rank, &result);
  if (!status) status = api->GetTensorMutableData(result, (void **)&problem.out);
  if (status) return status;
  if (edgetk_hard_attention(&problem, *self->isa ? self->isa : NULL) == EDGETK_NO_MEMORY) {
    return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free for a row", "none");
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

const OrtCustomOp edgetk_op_hard_attention = {
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
