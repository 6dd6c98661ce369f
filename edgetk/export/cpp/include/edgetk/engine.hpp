/// One step of a streaming model, its states inside: what a stream runs on, whatever computes it.
#pragma once

#include <cstddef>

namespace edgetk {

class Engine {
 public:
  virtual ~Engine() = default;
  /// Where the features of the next step have to be written.
  virtual float* input() = 0;
  /// Compute one step from `input()` and the states; the states move on.
  virtual void step() = 0;
  /// The scores of the last step.
  virtual const float* output() const = 0;
  /// Put state `index` of the description back to its first value.
  virtual void restart(std::size_t index) = 0;
  /// Put a zero into the first number of state `index` for the next step.
  virtual void clear_first(std::size_t index) = 0;
};

}  // namespace edgetk
