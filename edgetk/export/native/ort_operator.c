/* What the operators of the library do alike for ONNX Runtime. */
#include "ort_operator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

OrtStatusPtr edgetk_fail(const OrtApi *api, const char *who, OrtErrorCode code, const char *text, const char *got) {
  char message[256];
  snprintf(message, sizeof message, "edgetk::%s: %s, got %s", who, text, got);
  return api->CreateStatus(code, message);
}

OrtStatusPtr edgetk_read_input(const OrtApi *api, const char *who, const OrtKernelContext *context, size_t index, size_t least,
                               tensor *out) {
  const OrtValue *value = NULL;
  OrtTensorTypeAndShapeInfo *info = NULL;
  OrtStatusPtr status = api->KernelContext_GetInput(context, index, &value);
  if (!status) status = api->GetTensorTypeAndShape(value, &info);
  if (!status) status = api->GetDimensionsCount(info, &out->rank);
  if (!status && (out->rank < least || out->rank > MAX_RANK)) {
    char text[64], rank[24];
    snprintf(text, sizeof text, "inputs must have %zu to %d dimensions", least, MAX_RANK);
    snprintf(rank, sizeof rank, "%zu", out->rank);
    status = edgetk_fail(api, who, ORT_INVALID_ARGUMENT, text, rank);
  }
  void *data = NULL;
  if (!status) status = api->GetDimensions(info, out->shape, out->rank);
  if (!status) status = api->GetTensorMutableData((OrtValue *)value, &data);
  out->data = data;
  if (info) api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

OrtStatusPtr edgetk_read_isa(const OrtApi *api, const char *who, char isa[16]) {
  const char *named = getenv("EDGETK_ISA");
  isa[0] = 0;
  if (!named || !*named) return NULL;
  if (strlen(named) > 15 || !edgetk_has(named)) {
    char text[128];
    snprintf(text, sizeof text, "EDGETK_ISA must be one of those of this processor (%s)", edgetk_isas());
    return edgetk_fail(api, who, ORT_INVALID_ARGUMENT, text, named);
  }
  strcpy(isa, named);
  return NULL;
}

const char *edgetk_on_cpu(const OrtCustomOp *op) {
  (void)op;
  return NULL;
}

ONNXTensorElementDataType edgetk_is_float(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

size_t edgetk_one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

OrtCustomOpInputOutputCharacteristic edgetk_required(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return INPUT_OUTPUT_REQUIRED;
}

OrtMemType edgetk_memory(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return OrtMemTypeDefault;
}
