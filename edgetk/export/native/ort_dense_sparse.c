/* edgetk::DenseSparseMatMul and edgetk::DenseSparseMatMulByRow for ONNX Runtime: (x, values, indices) -> y; attribute width; and the
 * same with Int8 behind their names: (x, values, indices, scale) -> y.
 *
 * x (…, width) or, by row, (…, lines), float32; values (lines, s), float32 or int8; indices (lines, s), uint8 where width is at
 * most 256, else int16; scale (lines), float32. EDGETK_ISA in the environment names an instruction set to use.
 */
#include <stdlib.h>
#include <string.h>

#include "dense_sparse.h"
#include "ort_library.h"
#include "ort_operator.h"

enum { X, VALUES, INDICES, INPUTS, SCALE = INPUTS };

static const char WHO[] = "DenseSparseMatMul";

typedef struct {
  const OrtApi *api;
  int64_t width;
  int32_t side;
  int32_t codes;
  char isa[16]; /* "": the best one */
} kernel;

static OrtStatusPtr create(const OrtApi *api, const OrtKernelInfo *info, int32_t side, int32_t codes, void **out) {
  int64_t width = 0;
  char isa[16];
  OrtStatusPtr status = api->KernelInfoGetAttribute_int64(info, "width", &width);
  if (!status) status = edgetk_read_isa(api, WHO, isa);
  if (status) return status;
  if (width < 1 || width > INT16_MAX) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "width must be in [1, 32767]", "another number");
  }
  kernel *made = malloc(sizeof *made);
  if (!made) return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free", "none");
  *made = (kernel){api, width, side, codes, ""};
  memcpy(made->isa, isa, sizeof isa);
  *out = made;
  return NULL;
}

#define CREATE(name, side, codes)                                                                               \
  static OrtStatusPtr name(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **out) {    \
    (void)op;                                                                                                   \
    return create(api, info, side, codes, out);                                                                 \
  }

CREATE(create_by_column, EDGETK_BY_COLUMN, 0)
CREATE(create_by_row, EDGETK_BY_ROW, 0)
CREATE(create_by_column_int8, EDGETK_BY_COLUMN, 1)
CREATE(create_by_row_int8, EDGETK_BY_ROW, 1)

static void destroy(void *made) {
  free(made);
}

/* The type of an input: the runtime checks none that the operator leaves open. */
static OrtStatusPtr type_of(const OrtApi *api, const OrtKernelContext *context, size_t index, ONNXTensorElementDataType *type) {
  const OrtValue *value = NULL;
  OrtTensorTypeAndShapeInfo *info = NULL;
  OrtStatusPtr status = api->KernelContext_GetInput(context, index, &value);
  if (!status) status = api->GetTensorTypeAndShape(value, &info);
  if (!status) status = api->GetTensorElementType(info, type);
  if (info) api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

static OrtStatusPtr compute(void *made, OrtKernelContext *context) {
  const kernel *self = made;
  const OrtApi *api = self->api;
  tensor in[INPUTS + 1] = {{0}};
  for (size_t i = 0; i < (size_t)(INPUTS + self->codes); ++i) {
    OrtStatusPtr status = edgetk_read_input(api, WHO, context, i, i == VALUES || i == INDICES ? 2 : 1, &in[i]);
    if (status) return status;
  }
  const tensor *values = &in[VALUES], *indices = &in[INDICES];
  const int bytes = self->width <= 256 ? 1 : 2;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  OrtStatusPtr status = type_of(api, context, INDICES, &type);
  if (status) return status;
  if (type != (bytes == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16)) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "indices must be uint8 up to width 256, int16 above", "another type");
  }
  if (values->rank != 2 || indices->rank != 2 || memcmp(values->shape, indices->shape, 2 * sizeof *values->shape)) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "values and indices (lines, s) must match", "other shapes");
  }
  if (self->codes && (in[SCALE].rank != 1 || in[SCALE].shape[0] != values->shape[0])) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "scale must have a number for each line", "another shape");
  }
  const int by_column = self->side == EDGETK_BY_COLUMN;
  int64_t *const last = &in[X].shape[in[X].rank - 1];
  if (*last != (by_column ? self->width : values->shape[0])) {
    return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "the last dimension of x must be that of the matrix", "another one");
  }
  edgetk_sparse_product problem = {in[X].data,       values->data, in[SCALE].data,   indices->data, 1,
                                   values->shape[0], self->width,  values->shape[1], bytes,         self->side};
  for (size_t i = 0; i + 1 < in[X].rank; ++i) problem.tokens *= in[X].shape[i];
  *last = by_column ? values->shape[0] : self->width;
  OrtValue *result = NULL;
  float *out = NULL;
  status = api->KernelContext_GetOutput(context, 0, in[X].shape, in[X].rank, &result);
  if (!status) status = api->GetTensorMutableData(result, (void **)&out);
  if (status) return status;
  switch (edgetk_dense_sparse(&problem, out, *self->isa ? self->isa : NULL)) {
    case EDGETK_BAD_INDEX:
      return edgetk_fail(api, WHO, ORT_INVALID_ARGUMENT, "indices must be in [0, width)", "one that is not");
    case EDGETK_NO_MEMORY:
      return edgetk_fail(api, WHO, ORT_FAIL, "memory must be free for a tile", "none");
    default:
      return NULL;
  }
}

#define OPERATOR_NAME(function, name)                   \
  static const char *function(const OrtCustomOp *op) { \
    (void)op;                                          \
    return name;                                       \
  }

OPERATOR_NAME(name_by_column, "DenseSparseMatMul")
OPERATOR_NAME(name_by_row, "DenseSparseMatMulByRow")
OPERATOR_NAME(name_by_column_int8, "DenseSparseMatMulInt8")
OPERATOR_NAME(name_by_row_int8, "DenseSparseMatMulByRowInt8")

static ONNXTensorElementDataType type(const OrtCustomOp *op, size_t index) {
  (void)op;
  return index == INDICES ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

static ONNXTensorElementDataType type_int8(const OrtCustomOp *op, size_t index) {
  return index == VALUES ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : type(op, index);
}

static size_t inputs(const OrtCustomOp *op) {
  (void)op;
  return INPUTS;
}

static size_t inputs_int8(const OrtCustomOp *op) {
  (void)op;
  return INPUTS + 1;
}

#define OPERATOR(name, create, type, inputs)                    \
  {                                               \
      .version = EDGETK_ORT_VERSION,              \
      .GetName = name,                            \
      .GetExecutionProviderType = edgetk_on_cpu,  \
      .GetInputType = type,                       \
      .GetInputTypeCount = inputs,                \
      .GetOutputType = edgetk_is_float,           \
      .GetOutputTypeCount = edgetk_one,           \
      .KernelDestroy = destroy,                   \
      .GetInputCharacteristic = edgetk_required,  \
      .GetOutputCharacteristic = edgetk_required, \
      .GetInputMemoryType = edgetk_memory,        \
      .CreateKernelV2 = create,                   \
      .KernelComputeV2 = compute,                 \
  }

const OrtCustomOp edgetk_op_dense_sparse = OPERATOR(name_by_column, create_by_column, type, inputs);
const OrtCustomOp edgetk_op_dense_sparse_by_row = OPERATOR(name_by_row, create_by_row, type, inputs);
const OrtCustomOp edgetk_op_dense_sparse_int8 = OPERATOR(name_by_column_int8, create_by_column_int8, type_int8, inputs_int8);
const OrtCustomOp edgetk_op_dense_sparse_by_row_int8 = OPERATOR(name_by_row_int8, create_by_row_int8, type_int8, inputs_int8);
