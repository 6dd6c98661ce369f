/// A model file in ONNX Runtime: opened on one thread, described, and bound to memory that its steps take turns in.
#pragma once

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/description.hpp"
#include "edgetk/engine.hpp"
#include "edgetk/runtime.hpp"

namespace edgetk {

struct Options {
  std::string onnxruntime;  ///< the runtime's library; empty: see Runtime::load
  std::string operators;    ///< edgetk's native operator library; empty: $EDGETK_OPS, else operators run as their bodies
  int threads = 1;
  std::shared_ptr<const Runtime> runtime = nullptr;  ///< one that is loaded already
};

/// The opened file. Streams share it; it goes away with the last of them.
class Session {
 public:
  Session(const std::string& path, const Options& options)
      : runtime_(options.runtime ? options.runtime : Runtime::load(options.onnxruntime)) {
    const Runtime& ort = *runtime_;
    const std::string who = "model " + path;
    std::ifstream file(path, std::ios::binary);
    std::ostringstream read;
    read << file.rdbuf();
    const std::string content = read.str();
    if (content.empty())
      throw Error(who + ": must be a readable ONNX file, got " + (file.is_open() ? "nothing in it" : "no such file") +
                  "; check the path");

    OrtEnv* env = nullptr;
    ort.check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgetk", &env));
    env_ = ort.own(env, &OrtApi::ReleaseEnv);
    OrtSessionOptions* raw = nullptr;
    ort.check(ort->CreateSessionOptions(&raw));
    const auto held = ort.own(raw, &OrtApi::ReleaseSessionOptions);
    ort.check(ort->SetIntraOpNumThreads(raw, options.threads));
    ort.check(ort->SetInterOpNumThreads(raw, 1));
    ort.check(ort->SetSessionGraphOptimizationLevel(raw, ORT_ENABLE_ALL));
    const char* named = std::getenv("EDGETK_OPS");
    const std::string operators = options.operators.empty() && named ? named : options.operators;
    if (!operators.empty()) {
      void* library = nullptr;  // stays loaded: sessions keep pointers into it
      ort.check(ort->RegisterCustomOpsLibrary(raw, operators.c_str(), &library),
                operators + ": must be edgetk's operator library for this machine", "run: make native");
    }
    OrtSession* session = nullptr;
    ort.check(ort->CreateSessionFromArray(env, content.data(), content.size(), raw, &session),
              who + ": must be a model that ONNX Runtime " + ort.version() + " loads",
              "export it again, or update the runtime");
    session_ = ort.own(session, &OrtApi::ReleaseSession);
    describe(path);
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

  void describe(const std::string& path) {
    const Runtime& ort = *runtime_;
    OrtAllocator* allocator = nullptr;
    ort.check(ort->GetAllocatorWithDefaultOptions(&allocator));
    const auto text = [&](char* given) {
      std::string copy = given;
      ort.check(ort->AllocatorFree(allocator, given));
      return copy;
    };
    std::size_t counts[2] = {0, 0};
    ort.check(ort->SessionGetInputCount(get(), &counts[0]));
    ort.check(ort->SessionGetOutputCount(get(), &counts[1]));
    std::vector<Tensor> tensors[2];
    for (int side = 0; side < 2; ++side) {
      for (std::size_t i = 0; i < counts[side]; ++i) {
        char* name = nullptr;
        OrtTypeInfo* type = nullptr;
        ort.check(side ? ort->SessionGetOutputName(get(), i, allocator, &name)
                       : ort->SessionGetInputName(get(), i, allocator, &name));
        Tensor tensor{text(name), {}};
        ort.check(side ? ort->SessionGetOutputTypeInfo(get(), i, &type) : ort->SessionGetInputTypeInfo(get(), i, &type));
        const auto held = ort.own(type, &OrtApi::ReleaseTypeInfo);
        const OrtTensorTypeAndShapeInfo* info = nullptr;
        ort.check(ort->CastTypeInfoToTensorInfo(type, &info));
        ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        if (info) ort.check(ort->GetTensorElementType(info, &element));
        if (element != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
          throw Error("model " + path + ": " + tensor.name +
                      " must be a float32 tensor, got another type; export it with float32 inputs and outputs");
        }
        std::size_t rank = 0;
        ort.check(ort->GetDimensionsCount(info, &rank));
        tensor.shape.resize(rank);
        ort.check(ort->GetDimensions(info, tensor.shape.data(), rank));
        tensors[side].push_back(std::move(tensor));
      }
    }
    OrtModelMetadata* metadata = nullptr;
    ort.check(ort->SessionGetModelMetadata(get(), &metadata));
    const auto held = ort.own(metadata, &OrtApi::ReleaseModelMetadata);
    const auto lookup = [&](const std::string& key) -> std::optional<std::string> {
      char* value = nullptr;
      ort.check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, key.c_str(), &value));
      return value ? std::optional<std::string>(text(value)) : std::nullopt;
    };
    description_ = Description::read(path, lookup, tensors[0], tensors[1]);
  }
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
  float* state(std::size_t index) override { return states_[turn_][index].memory->data(); }

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
