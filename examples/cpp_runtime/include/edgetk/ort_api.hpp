/// ONNX Runtime's C API: from its own header where the compiler finds one, else the few slots that the runner calls.
///
/// The order of the slots is the runtime's promise (new ones are only appended), so that a program built either way runs with
/// every ONNX Runtime from 1.16 on.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(ORT_API_VERSION) && !defined(EDGETK_ORT_OWN_HEADER) && defined(__has_include)
#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#elif __has_include(<onnxruntime/onnxruntime_c_api.h>)
#include <onnxruntime/onnxruntime_c_api.h>
#elif __has_include(<onnxruntime/core/session/onnxruntime_c_api.h>)
#include <onnxruntime/core/session/onnxruntime_c_api.h>
#endif
#endif

namespace edgetk {
/// The version of the API that is asked for: that of ONNX Runtime 1.16.
constexpr std::uint32_t ort_api_version = 16;
}  // namespace edgetk

#if !defined(ORT_API_VERSION)

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtAllocator;
struct OrtMemoryInfo;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtModelMetadata;
struct OrtIoBinding;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum GraphOptimizationLevel { ORT_ENABLE_ALL = 99 };
enum OrtAllocatorType { OrtDeviceAllocator = 0 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };

struct OrtApi {
  using Slot = void (*)();
  Slot from_0[2];
  const char* (*GetErrorMessage)(const OrtStatus*);  // 2
  OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char* name, OrtEnv** out);
  Slot from_4[4];
  OrtStatus* (*CreateSessionFromArray)(const OrtEnv*, const void* data, std::size_t size, const OrtSessionOptions*,
                                       OrtSession** out);  // 8
  Slot from_9;
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** out);  // 10
  Slot from_11[12];
  OrtStatus* (*SetSessionGraphOptimizationLevel)(OrtSessionOptions*, GraphOptimizationLevel);  // 23
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int);
  OrtStatus* (*SetInterOpNumThreads)(OrtSessionOptions*, int);
  Slot from_26[3];
  OrtStatus* (*RegisterCustomOpsLibrary)(OrtSessionOptions*, const char* path, void** handle);  // 29
  OrtStatus* (*SessionGetInputCount)(const OrtSession*, std::size_t* out);
  OrtStatus* (*SessionGetOutputCount)(const OrtSession*, std::size_t* out);
  Slot from_32;
  OrtStatus* (*SessionGetInputTypeInfo)(const OrtSession*, std::size_t index, OrtTypeInfo** out);  // 33
  OrtStatus* (*SessionGetOutputTypeInfo)(const OrtSession*, std::size_t index, OrtTypeInfo** out);
  Slot from_35;
  OrtStatus* (*SessionGetInputName)(const OrtSession*, std::size_t index, OrtAllocator*, char** out);  // 36
  OrtStatus* (*SessionGetOutputName)(const OrtSession*, std::size_t index, OrtAllocator*, char** out);
  Slot from_38[11];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, std::size_t size, const std::int64_t* shape,
                                               std::size_t rank, ONNXTensorElementDataType, OrtValue** out);  // 49
  Slot from_50[5];
  OrtStatus* (*CastTypeInfoToTensorInfo)(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo** out);  // 55
  Slot from_56[4];
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo*, ONNXTensorElementDataType* out);  // 60
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, std::size_t* out);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, std::int64_t* out, std::size_t count);
  Slot from_63[6];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo** out);  // 69
  Slot from_70[6];
  OrtStatus* (*AllocatorFree)(OrtAllocator*, void* memory);  // 76
  Slot from_77;
  OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator** out);  // 78
  Slot from_79[13];
  void (*ReleaseEnv)(OrtEnv*);  // 92
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);
  Slot from_97;
  void (*ReleaseTypeInfo)(OrtTypeInfo*);  // 98
  Slot from_99;
  void (*ReleaseSessionOptions)(OrtSessionOptions*);  // 100
  Slot from_101[10];
  OrtStatus* (*SessionGetModelMetadata)(const OrtSession*, OrtModelMetadata** out);  // 111
  Slot from_112[4];
  OrtStatus* (*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata*, OrtAllocator*, const char* key,
                                                     char** out);  // 116
  Slot from_117;
  void (*ReleaseModelMetadata)(OrtModelMetadata*);  // 118
  Slot from_119[14];
  OrtStatus* (*RunWithBinding)(OrtSession*, const OrtRunOptions*, const OrtIoBinding*);  // 133
  OrtStatus* (*CreateIoBinding)(OrtSession*, OrtIoBinding** out);
  void (*ReleaseIoBinding)(OrtIoBinding*);
  OrtStatus* (*BindInput)(OrtIoBinding*, const char* name, const OrtValue*);
  OrtStatus* (*BindOutput)(OrtIoBinding*, const char* name, const OrtValue*);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

#endif
