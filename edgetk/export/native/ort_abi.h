/* What an operator library needs of ONNX Runtime's C API: the layout of two structures and the functions used of them.
 *
 * The layout is part of the runtime's promise (slots are only ever appended), so that a library built with this file loads
 * into every runtime from 1.16 on. With -DEDGETK_ORT_HEADER the runtime's own onnxruntime_c_api.h takes its place.
 */
#ifndef EDGETK_ORT_ABI_H
#define EDGETK_ORT_ABI_H

/* Version 16 of the API brought the functions of a kernel that return a status. */
enum { EDGETK_ORT_VERSION = 16 };

#if defined(EDGETK_ORT_HEADER)
#include <onnxruntime_c_api.h>
#else

#include <stddef.h>
#include <stdint.h>

typedef struct OrtStatus OrtStatus;
typedef OrtStatus *OrtStatusPtr;
typedef struct OrtValue OrtValue;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtApi OrtApi;
typedef struct OrtCustomOp OrtCustomOp;

typedef enum { ORT_OK, ORT_FAIL, ORT_INVALID_ARGUMENT } OrtErrorCode;
typedef enum {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16 = 5
} ONNXTensorElementDataType;
typedef enum { INPUT_OUTPUT_REQUIRED } OrtCustomOpInputOutputCharacteristic;
typedef enum { OrtMemTypeDefault } OrtMemType;

typedef void (*edgetk_slot)(void);

struct OrtApi {
  OrtStatusPtr (*CreateStatus)(OrtErrorCode code, const char *message); /* slot 0 */
  edgetk_slot from_1[25];
  OrtStatusPtr (*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **out); /* 26 */
  OrtStatusPtr (*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
  OrtStatusPtr (*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
  edgetk_slot from_29[22];
  OrtStatusPtr (*GetTensorMutableData)(OrtValue *value, void **out); /* 51 */
  edgetk_slot from_52[8];
  OrtStatusPtr (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType *out); /* 60 */
  OrtStatusPtr (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
  OrtStatusPtr (*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *values, size_t count);
  edgetk_slot from_63[2];
  OrtStatusPtr (*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **out); /* 65 */
  edgetk_slot from_66[19];
  OrtStatusPtr (*KernelInfoGetAttribute_float)(const OrtKernelInfo *info, const char *name, float *out); /* 85 */
  OrtStatusPtr (*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name, int64_t *out);
  OrtStatusPtr (*KernelInfoGetAttribute_string)(const OrtKernelInfo *info, const char *name, char *out, size_t *size); /* 87 */
  edgetk_slot from_88[2];
  OrtStatusPtr (*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **out); /* 90 */
  OrtStatusPtr (*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *shape, size_t rank,
                                          OrtValue **out);
  edgetk_slot from_92[7];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info); /* 99 */
  edgetk_slot from_100;
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *domain); /* 101 */
};

typedef struct OrtApiBase {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
  uint32_t version;
  void *(*CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
  const char *(*GetName)(const OrtCustomOp *op);
  const char *(*GetExecutionProviderType)(const OrtCustomOp *op);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp *op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp *op);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp *op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
  void (*KernelCompute)(void *kernel, OrtKernelContext *context);
  void (*KernelDestroy)(void *kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp *op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp *op);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp *op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
  OrtStatusPtr (*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info, void **kernel);
  OrtStatusPtr (*KernelComputeV2)(void *kernel, OrtKernelContext *context);
  edgetk_slot from_version_17[7]; /* not read of an operator of version 16 */
};

#endif
#endif
