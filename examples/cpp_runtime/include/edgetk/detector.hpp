/// When a stream of scores says that a word was heard: the definition of edgetk/tasks/speech/detect.py, step by step.
///
/// Rows are the scores of one frame each (`Scoring::each_frame`). Their mean over a window, as a probability; the best class
/// counts if it is watched and reaches the threshold; `hold` steps in a row must count for it; then it is detected, unless
/// fewer than `refractory` steps passed since the last detection. The window is summed anew each step, so that nothing drifts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/description.hpp"

namespace edgetk {

/// Settings of a detector; the unit of time is one step.
struct Rule {
  int window = 60;                      ///< rows whose scores are averaged
  double threshold = 0.95;              ///< probability from which on a word counts
  int hold = 5;                         ///< steps in a row that must count for the same word
  int refractory = 150;                 ///< fewest steps between two detections
  std::vector<std::string> words = {};  ///< the words to watch; empty for all labels
};

struct Detection {
  std::int64_t step = 0;  ///< counted from the first row that belongs to a frame
  std::size_t label = 0;
  double score = 0;    ///< its probability
  double heard_s = 0;  ///< seconds of sound that had to be heard for it, look-ahead included
};

/// Nothing is allocated after construction.
class Detector {
 public:
  explicit Detector(const Description& description, const Rule& rule = {})
      : rule_(rule),
        classes_(description.outputs.at(0).size()),
        period_s_(description.period_s),
        lookahead_s_(description.lookahead_s) {
    const auto refuse = [](const std::string& must, const std::string& got, const std::string& advice) {
      throw Error("detector: " + must + ", got " + got + "; " + advice);
    };
    if (rule_.window < 1) refuse("window must be at least 1 steps", std::to_string(rule_.window), "raise it");
    if (rule_.hold < 1) refuse("hold must be at least 1 steps", std::to_string(rule_.hold), "raise it");
    if (rule_.refractory < 0) refuse("refractory must be at least 0 steps", std::to_string(rule_.refractory), "raise it");
    if (!(rule_.threshold > 0 && rule_.threshold < 1)) {
      refuse("threshold must be a probability between 0 and 1", std::to_string(rule_.threshold), "0.8 is one");
    }
    std::vector<std::string> names;
    for (std::size_t i = 0; i < classes_; ++i) names.push_back(description.label(i));
    for (const std::string& word : rule_.words) {
      if (std::find(names.begin(), names.end(), word) == names.end()) {
        std::string known;
        for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
        refuse("a watched word must be a label of the model", "\"" + word + "\"", "known: " + known);
      }
    }
    for (const std::string& name : names) {
      watched_.push_back(rule_.words.empty() || std::find(rule_.words.begin(), rule_.words.end(), name) != rule_.words.end());
    }
    if (description.log_mel)
      frame_s_ = static_cast<double>(description.log_mel->window_samples) / description.log_mel->sample_rate;
    ring_.resize(static_cast<std::size_t>(rule_.window) * classes_);
    probabilities_.resize(classes_);
    reset();
  }

  /// The next row of scores. True where it brings a detection, which is then in `found`.
  bool push(const float* scores, Detection& found) {
    const std::int64_t step = rows_++, window = rule_.window;
    std::copy(scores, scores + classes_,
              ring_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(step % window) * classes_));
    if (rows_ < window) return false;
    std::fill(probabilities_.begin(), probabilities_.end(), 0.0);
    for (std::int64_t age = window - 1; age >= 0; --age) {
      const float* row = ring_.data() + static_cast<std::size_t>((step - age) % window) * classes_;
      for (std::size_t i = 0; i < classes_; ++i) probabilities_[i] += row[i];
    }
    for (double& p : probabilities_) p = 1 / (1 + std::exp(-std::clamp(p / static_cast<double>(window), -700.0, 700.0)));
    const auto best = std::max_element(probabilities_.begin(), probabilities_.end());
    const auto label = static_cast<std::size_t>(best - probabilities_.begin());
    if (!watched_[label] || !(*best >= rule_.threshold)) return false;
    held_ = seen_step_ == step - 1 && seen_label_ == label ? held_ + 1 : 1;
    seen_step_ = step;
    seen_label_ = label;
    if (held_ < rule_.hold || (last_ != none && step - last_ < rule_.refractory)) return false;
    last_ = step;
    found = {step, label, *best, static_cast<double>(step) * period_s_ + lookahead_s_ + frame_s_};
    return true;
  }

  /// Of all classes after the last row; zeros before the window is full.
  const std::vector<double>& probabilities() const { return probabilities_; }

  /// Start a new stream.
  void reset() {
    std::fill(probabilities_.begin(), probabilities_.end(), 0.0);
    rows_ = held_ = 0;
    last_ = seen_step_ = none;
  }

 private:
  static constexpr std::int64_t none = -2;  // no step, nor the one before a step
  Rule rule_;
  std::size_t classes_, seen_label_ = 0;
  double period_s_, lookahead_s_, frame_s_ = 0;
  std::vector<float> ring_;
  std::vector<double> probabilities_;
  std::vector<bool> watched_;
  std::int64_t rows_ = 0, held_ = 0, last_ = none, seen_step_ = none;
};

}  // namespace edgetk
