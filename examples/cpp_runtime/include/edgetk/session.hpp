/// A model file in ONNX Runtime: opened on one thread, described, and bound to memory that its steps take turns in.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/description.hpp"
#include "edgetk/engine.hpp"
#include "edgetk/onnx_file.hpp"
#include "edgetk/runtime.hpp"

namespace edgetk {

struct Options {
  std::string onnxruntime;  ///< the runtime's library; empty: see Runtime::load
  std::string operators;    ///< edgetk's native operator library; empty: $EDGETK_OPS, else operators run as their bodies
  int threads = 1;
  std::string engine_library;  ///< generated C of the same model, to run instead of ONNX Runtime (see StepLibrary)
  std::string isa;             ///< one of its builds; empty: the best on this processor
  std::shared_ptr<const Runtime> runtime = nullptr;  ///< one that is loaded already
};

/// The opened file. Streams share it; it goes away with the last of them.
class Session {
 public:
  Session(const std::string& path, const Options& options)
      : runtime_(options.runtime ? options.runtime : Runtime::load(options.onnxruntime)) {
    const Runtime& ort = *runtime_;
    const std::string who = "model " + path;
    const std::string content = read_model(path);

    OrtEnv* env = nullptr;
    ort.check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgetk", &env));
    env_ = ort.own(env, &OrtApi::ReleaseEnv);
    OrtSessionOptions* raw = nullptr;
    ort.check(ort->CreateSessionOptions(&raw));
    const auto held = ort.own(raw, &OrtApi::ReleaseSessionOptions);
    ort.check(ort->SetIntraOpNumThreads(raw, options.threads));
    ort.check(ort->SetInterOpNumThreads(raw, 1));
    ort.check(ort->SetSessionGraphOptimizationLevel(raw, ORT_ENABLE_ALL));
    const char* const exact = "session.x64quantprecision";
    ort.check(ort->AddSessionConfigEntry(raw, exact, "1"));  // else integer products saturate on x86 without VNNI
    const char* named = std::getenv("EDGETK_OPS");
    const std::string operators = options.operators.empty() && named ? named : options.operators;
    if (!operators.empty()) {
      void* library = nullptr;  // stays loaded: sessions keep pointers into it
      ort.check(ort->RegisterCustomOpsLibrary(raw, operators.c_str(), &library),
                operators + ": must be edgetk's operator library for this machine", "run: make native");
    }
    OrtSession* session = nullptr;
    const auto open = [&] { return ort->CreateSessionFromArray(env, content.data(), content.size(), raw, &session); };
    OrtStatus* status = open();
    if (status && std::strstr(ort->GetErrorMessage(status), "replace the existing tensor")) {  // tied int8 weights
      ort->ReleaseStatus(status);
      ort.check(ort->AddSessionConfigEntry(raw, exact, "0"));
      status = open();
    }
    ort.check(status,
              who + ": must be a model that ONNX Runtime " + ort.version() + " loads",
              "export it again, or update the runtime");
    session_ = ort.own(session, &OrtApi::ReleaseSession);
    description_ = describe(path, content);
  }

  const Description& description() const { return description_; }
  const Runtime& runtime() const { return *runtime_; }
  OrtSession* get() const { return session_.get(); }

  /// A tensor over memory of the caller.
  std::shared_ptr<OrtValue> tensor(std::vector<float>& memory, const std::vector<std::int64_t>& shape) const {
    const Runtime& ort = *runtime_;
    OrtMemoryInfo* info = nullptr;
    ort.check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &info));
    const auto held = ort.own(info, &OrtApi::ReleaseMemoryInfo);
    std::vector<std::int64_t> fixed = shape;
    for (auto& d : fixed) d = d < 0 ? 1 : d;
    OrtValue* value = nullptr;
    ort.check(ort->CreateTensorWithDataAsOrtValue(info, memory.data(), memory.size() * sizeof(float), fixed.data(),
                                                  fixed.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return ort.own(value, &OrtApi::ReleaseValue);
  }

 private:
  std::shared_ptr<const Runtime> runtime_;
  std::shared_ptr<OrtEnv> env_;
  std::shared_ptr<OrtSession> session_;
  Description description_;
};

/// The graph's tensors bound to memory once, so that a call allocates nothing. Each state has two places: an even call reads
/// the first and writes the second, an odd call the other way round, so that no caller can forget to carry it.
class OrtEngine : public Engine {
 public:
  explicit OrtEngine(std::shared_ptr<const Session> session) : session_(std::move(session)) {
    const Description& d = session_->description();
    for (const Tensor& tensor : d.inputs) add(in_, tensor);
    for (const Tensor& tensor : d.outputs) add(out_, tensor);
    for (const State& state : d.states) {
      for (auto& places : states_) add(places, state.tensor);
    }
    for (int turn = 0; turn < 2; ++turn) {
      const Runtime& ort = session_->runtime();
      OrtIoBinding* binding = nullptr;
      ort.check(ort->CreateIoBinding(session_->get(), &binding));
      bindings_[turn] = ort.own(binding, &OrtApi::ReleaseIoBinding);
      for (std::size_t i = 0; i < in_.size(); ++i)
        ort.check(ort->BindInput(binding, d.inputs[i].name.c_str(), in_[i].value.get()));
      for (std::size_t i = 0; i < out_.size(); ++i)
        ort.check(ort->BindOutput(binding, d.outputs[i].name.c_str(), out_[i].value.get()));
      for (std::size_t i = 0; i < d.states.size(); ++i) {
        ort.check(ort->BindInput(binding, d.states[i].tensor.name.c_str(), states_[turn][i].value.get()));
        ort.check(ort->BindOutput(binding, d.states[i].output.c_str(), states_[1 - turn][i].value.get()));
      }
    }
  }

  float* input() override { return in_[0].memory->data(); }
  const float* output() const override { return out_[0].memory->data(); }
  void restart(std::size_t index) override {
    const std::vector<float>& first = session_->description().states[index].init;
    std::copy(first.begin(), first.end(), states_[turn_][index].memory->begin());
  }
  void clear_first(std::size_t index) override { states_[turn_][index].memory->front() = 0.0f; }

  void step() override {
    const Runtime& ort = session_->runtime();
    if (OrtStatus* status = ort->RunWithBinding(session_->get(), nullptr, bindings_[turn_].get())) ort.check(status);
    turn_ = 1 - turn_;
  }

 private:
  struct Place {
    std::unique_ptr<std::vector<float>> memory;  // its address stays when the list of places grows
    std::shared_ptr<OrtValue> value;
  };
  std::shared_ptr<const Session> session_;
  std::vector<Place> in_, out_, states_[2];
  std::shared_ptr<OrtIoBinding> bindings_[2];
  int turn_ = 0;

  void add(std::vector<Place>& places, const Tensor& tensor) const {
    Place place{std::make_unique<std::vector<float>>(tensor.size()), nullptr};
    place.value = session_->tensor(*place.memory, tensor.shape);
    places.push_back(std::move(place));
  }
};

}  // namespace edgetk
