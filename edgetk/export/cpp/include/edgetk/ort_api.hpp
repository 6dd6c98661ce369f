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
struct OrtMemoryInfo;
struct OrtValue;
struct OrtIoBinding;

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_ERROR = 3 };
enum GraphOptimizationLevel { ORT_ENABLE_ALL = 99 };
enum OrtAllocatorType { OrtDeviceAllocator = 0 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };

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
  Slot from_30[19];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, std::size_t size, const std::int64_t* shape,
                                               std::size_t rank, ONNXTensorElementDataType, OrtValue** out);  // 49
  Slot from_50[19];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo** out);  // 69
  Slot from_70[22];
  void (*ReleaseEnv)(OrtEnv*);  // 92
  void (*ReleaseStatus)(OrtStatus*);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
  void (*ReleaseSession)(OrtSession*);
  void (*ReleaseValue)(OrtValue*);
  Slot from_97[3];
  void (*ReleaseSessionOptions)(OrtSessionOptions*);  // 100
  Slot from_101[29];
  OrtStatus* (*AddSessionConfigEntry)(OrtSessionOptions*, const char* key, const char* value);  // 130
  Slot from_131[2];
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
