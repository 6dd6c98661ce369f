/// A model file, opened: what it says about itself, and the streams that run on it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/session.hpp"
#include "edgetk/step_library.hpp"
#include "edgetk/stream.hpp"

namespace edgetk {

class Model {
 public:
  /// Open a file that edgetk exported. With `options.engine_library` its steps are computed by generated C, and ONNX Runtime is
  /// not needed. Throws Error, in one sentence, for what is missing or wrong.
  static Model load(const std::string& path, const Options& options = {}) {
    Model model;
    if (options.engine_library.empty()) {
      model.session_ = std::make_shared<const Session>(path, options);
      model.description_ = model.session_->description();
    } else {
      model.description_ = describe(path, read_model(path));
      model.library_ = std::make_shared<const StepLibrary>(options.engine_library, model.description_, options.isa);
    }
    return model;
  }

  const Description& description() const { return description_; }
  /// What computes: "ONNX Runtime 1.32.0", or "generated C, avx2".
  std::string runtime() const {
    return library_ ? "generated C, " + library_->isa() : "ONNX Runtime " + session_->runtime().version();
  }

  /// A stream of its own, at its start. Streams of one model may run in different threads.
  Stream stream(const StreamOptions& options = {}) const {
    return Stream(engine(), description(), options);
  }

  /// The scores of one whole input of a model without states, dimensions the graph leaves open taken as 1.
  std::vector<float> run(const std::vector<float>& input) const {
    const Description& d = description();
    if (!d.states.empty() || d.inputs.size() != 1) {
      throw Error("model " + d.name + ": must be one input without states to be run at once, got " +
                  std::to_string(d.inputs.size()) + " and " + std::to_string(d.states.size()) + " states; use stream()");
    }
    if (input.size() != d.inputs[0].size()) {
      throw Error("model " + d.name + ": must be given " + std::to_string(d.inputs[0].size()) + " numbers, got " +
                  std::to_string(input.size()) + "; give one whole input");
    }
    const std::unique_ptr<Engine> once = engine();
    std::copy(input.begin(), input.end(), once->input());
    once->step();
    return std::vector<float>(once->output(), once->output() + d.outputs[0].size());
  }

 private:
  Model() = default;
  std::shared_ptr<const Session> session_;  // one of the two
  std::shared_ptr<const StepLibrary> library_;
  Description description_;

  std::unique_ptr<Engine> engine() const {
    if (library_) return std::make_unique<StepEngine>(library_, description_);
    return std::make_unique<OrtEngine>(session_);
  }
};

}  // namespace edgetk
