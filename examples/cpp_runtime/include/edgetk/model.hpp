/// A model file, opened: what it says about itself, and the streams that run on it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/session.hpp"
#include "edgetk/stream.hpp"

namespace edgetk {

class Model {
 public:
  /// Open a file that edgetk exported. Throws Error, in one sentence, for what is missing or wrong.
  static Model load(const std::string& path, const Options& options = {}) {
    return Model(std::make_shared<const Session>(path, options));
  }

  const Description& description() const { return session_->description(); }
  const std::string& runtime_version() const { return session_->runtime().version(); }

  /// A stream of its own, at its start. Streams of one model may run in different threads.
  Stream stream(const StreamOptions& options = {}) const {
    return Stream(std::make_unique<OrtEngine>(session_), description(), options);
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
    OrtEngine engine(session_);
    std::copy(input.begin(), input.end(), engine.input());
    engine.step();
    return std::vector<float>(engine.output(), engine.output() + d.outputs[0].size());
  }

 private:
  explicit Model(std::shared_ptr<const Session> session) : session_(std::move(session)) {}
  std::shared_ptr<const Session> session_;
};

}  // namespace edgetk
