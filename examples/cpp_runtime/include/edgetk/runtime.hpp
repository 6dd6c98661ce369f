/// Finding ONNX Runtime, and owning what its C API hands out.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "edgetk/error.hpp"
#include "edgetk/ort_api.hpp"

#if defined(EDGETK_ORT_LINKED) && !defined(ORT_API_VERSION)
extern "C" const OrtApiBase* OrtGetApiBase(void);
#endif

namespace edgetk {

/// The runtime, loaded once for all models that use it.
class Runtime {
 public:
  /// `library` names the file to load. Empty: $EDGETK_ORT_LIBRARY, the library the program was linked with, the one its build
  /// found, or libonnxruntime.so.1 where the system looks for libraries; the first of these that there is.
  static std::shared_ptr<const Runtime> load(const std::string& library = "") {
    const char* named = std::getenv("EDGETK_ORT_LIBRARY");
    if (!library.empty()) return opened(library);
    if (named && *named) return opened(named);
#if defined(EDGETK_ORT_LINKED)
    return std::make_shared<const Runtime>(OrtGetApiBase());
#else
#if defined(EDGETK_ORT_DEFAULT)
    if (auto runtime = tried(EDGETK_ORT_DEFAULT)) return runtime;
#endif
    for (const char* name : {"libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime.dylib"}) {
      if (auto runtime = tried(name)) return runtime;
    }
    throw Error(
        "ONNX Runtime: must be installed, got no library that loads; run pip install onnxruntime and cmake again, or name "
        "it with EDGETK_ORT_LIBRARY=/path/to/libonnxruntime.so.1");
#endif
  }

  /// The runtime that the program has loaded itself.
  explicit Runtime(const OrtApiBase* base) : version_(base->GetVersionString()), api_(base->GetApi(ort_api_version)) {
    if (!api_) throw Error("ONNX Runtime: must be 1.16 or newer, got " + version_ + "; update it");
  }

  const OrtApi* operator->() const { return api_; }
  const std::string& version() const { return version_; }

  /// Throw Error "<who>: <what must hold>, got <the runtime's message>; <what to do>" unless `status` is good.
  void check(OrtStatus* status, const std::string& who_must, const std::string& advice) const {
    if (!status) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw Error(who_must + ", got: " + message.substr(0, message.find('\n')) + "; " + advice);
  }
  void check(OrtStatus* status) const { check(status, "ONNX Runtime: the call must succeed", "this is a fault of the runner"); }

  /// Hold an object of the runtime until it is no longer needed.
  template <class T>
  std::shared_ptr<T> own(T* object, void (*OrtApi::*release)(T*)) const {
    return std::shared_ptr<T>(object, [call = api_->*release](T* it) { call(it); });
  }

 private:
  std::string version_;
  const OrtApi* api_;

  static std::shared_ptr<const Runtime> tried(const std::string& library) {
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return nullptr;
    using GetBase = const OrtApiBase* (*)();
    const auto get = reinterpret_cast<GetBase>(dlsym(handle, "OrtGetApiBase"));
    // The library stays loaded until the program ends: it has threads and globals of its own.
    return get ? std::make_shared<const Runtime>(get()) : nullptr;
  }

  static std::shared_ptr<const Runtime> opened(const std::string& library) {
    if (auto runtime = tried(library)) return runtime;
    const char* reason = dlerror();
    throw Error("ONNX Runtime: " + library + " must be its library, got: " + (reason ? reason : "no reason") +
                "; correct the path");
  }
};

}  // namespace edgetk
