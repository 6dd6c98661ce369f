/// Generated C as a shared library (`edgetk export --c`): opened, held against the model's description, and run as an engine.
#pragma once

#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/description.hpp"
#include "edgetk/engine.hpp"
#include "edgetk/error.hpp"
#include "edgetk/json.hpp"

namespace edgetk {

/// The opened library. Streams share it; it stays loaded until the program ends.
class StepLibrary {
 public:
  /// Where a state of the description lies in the state of the library.
  struct Place {
    std::size_t offset, bytes;
  };

  /// Open `path`, which must compute the model of `d`. `isa`: one of its builds, "" for the best on this processor. Throws Error.
  StepLibrary(const std::string& path, const Description& d, const std::string& isa) : who_("engine library " + path) {
    void* handle = dlopen(path.find('/') == std::string::npos ? ("./" + path).c_str() : path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char* reason = dlerror();
      throw Error(who_ + ": must be a library of generated C for this machine, got: " + (reason ? reason : "no reason") +
                  "; build it from edgetk export --c");
    }
    const auto about = find<const char* (*)()>(handle, "edgetk_c_about");
    const auto use = find<int (*)(const char*)>(handle, "edgetk_c_use");
    const auto running = find<const char* (*)()>(handle, "edgetk_c_isa");
    reset_ = find<void (*)(void*)>(handle, "edgetk_c_reset");
    step_ = find<void (*)(void*, const float* const*, float* const*)>(handle, "edgetk_c_step");
    check(about(), d);
    // The first reset brings the weights into the order of the chosen build, for all streams that come later.
    static std::mutex once;
    const std::lock_guard<std::mutex> lock(once);
    if (!isa.empty() && use(isa.c_str()) != 0) {
      throw Error(who_ + ": must have a build for " + isa + " that runs here, got none; leave it out");
    }
    isa_ = running();
    start_.resize(state_bytes_ / sizeof(float) + 1);
    reset_(start_.data());
  }

  /// The instruction set that runs.
  const std::string& isa() const { return isa_; }
  /// The whole state at the start of a stream.
  const std::vector<float>& start() const { return start_; }
  const std::vector<Place>& places() const { return places_; }
  void step(void* state, const float* const* inputs, float* const* outputs) const { step_(state, inputs, outputs); }

 private:
  std::string who_, isa_;
  std::size_t state_bytes_ = 0;
  std::vector<Place> places_;
  std::vector<float> start_;
  void (*reset_)(void*) = nullptr;
  void (*step_)(void*, const float* const*, float* const*) = nullptr;

  template <class Function>
  Function find(void* handle, const char* name) const {
    void* found = dlsym(handle, name);
    if (!found) {
      throw Error(who_ + ": must export " + name + ", got no such function; build it from edgetk export --c");
    }
    return reinterpret_cast<Function>(found);
  }

  [[noreturn]] void other_model(const std::string& what, const std::string& wanted, const std::string& got) const {
    throw Error(who_ + ": must have " + what + " " + wanted + " as the model file has, got " + got +
                "; export both from one model");
  }

  /// Names and sizes of `tensors` must be those of `said`, in order.
  void same(const char* what, const Json& said, const std::vector<Tensor>& tensors) const {
    const auto listed = [](const std::string& name, std::size_t size) { return name + "[" + std::to_string(size) + "]"; };
    std::string wanted, got;
    for (const Tensor& t : tensors) wanted += (wanted.empty() ? "" : ", ") + listed(t.name, t.size());
    for (const Json& item : said.items) {
      got += (got.empty() ? "" : ", ") + listed(item.at("tensor", Json::Kind::text).text,
                                                static_cast<std::size_t>(item.at("size", Json::Kind::number).number));
    }
    if (wanted != got) other_model(what, wanted.empty() ? "none" : wanted, got.empty() ? "none" : got);
  }

  void check(const char* text, const Description& d) {
    try {
      const Json about = Json::parse(text);
      const std::string graph = about.at("graph_sha256", Json::Kind::text).text;
      same("inputs", about.at("inputs", Json::Kind::list), d.inputs);
      same("outputs", about.at("outputs", Json::Kind::list), d.outputs);
      const Json& states = about.at("states", Json::Kind::list);
      std::vector<Tensor> tensors;
      for (const State& state : d.states) tensors.push_back(state.tensor);
      same("states", states, tensors);
      if (!d.graph_sha256.empty() && graph != d.graph_sha256) {
        other_model("the weights of graph", d.graph_sha256.substr(0, 12), graph.substr(0, 12));
      }
      state_bytes_ = static_cast<std::size_t>(about.at("state_bytes", Json::Kind::number).number);
      for (const Json& state : states.items) {
        const bool codes = state.at("dtype", Json::Kind::text).text != "float";
        const auto size = static_cast<std::size_t>(state.at("size", Json::Kind::number).number);
        places_.push_back({static_cast<std::size_t>(state.at("offset", Json::Kind::number).number), codes ? size : 4 * size});
        const std::string& name = state.at("tensor", Json::Kind::text).text;
        if (codes && name == "state_valid") {
          throw Error(who_ + ": must keep state_valid as float32, got codes; run the model file without it");
        }
      }
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.rfind(who_, 0) == 0) throw;
      throw Error(who_ + ": must tell what it computes, got: " + message + "; export it again");
    }
  }
};

/// A stream's own state, inputs and outputs. The step writes the next state over the old one itself, so that no caller can
/// forget to carry it.
class StepEngine : public Engine {
 public:
  StepEngine(std::shared_ptr<const StepLibrary> library, const Description& d)
      : library_(std::move(library)), state_(library_->start()) {
    for (const Tensor& tensor : d.inputs) in_.emplace_back(tensor.size());
    for (const Tensor& tensor : d.outputs) out_.emplace_back(tensor.size());
    for (const auto& memory : in_) inputs_.push_back(memory.data());
    for (auto& memory : out_) outputs_.push_back(memory.data());
  }

  float* input() override { return in_[0].data(); }
  const float* output() const override { return out_[0].data(); }
  void step() override { library_->step(state_.data(), inputs_.data(), outputs_.data()); }
  void restart(std::size_t index) override {
    const auto [offset, bytes] = library_->places()[index];
    std::memcpy(at(state_, offset), at(library_->start(), offset), bytes);
  }
  void clear_first(std::size_t index) override { state_[library_->places()[index].offset / sizeof(float)] = 0.0f; }

 private:
  std::shared_ptr<const StepLibrary> library_;
  std::vector<float> state_;
  std::vector<std::vector<float>> in_, out_;
  std::vector<const float*> inputs_;
  std::vector<float*> outputs_;

  static char* at(std::vector<float>& state, std::size_t offset) { return reinterpret_cast<char*>(state.data()) + offset; }
  static const char* at(const std::vector<float>& state, std::size_t offset) {
    return reinterpret_cast<const char*>(state.data()) + offset;
  }
};

}  // namespace edgetk
