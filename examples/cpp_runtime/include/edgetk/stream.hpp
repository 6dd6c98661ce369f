/// Sound or features in, scores out, one step after another: the front end, the model's states and its look-ahead kept
/// together.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/description.hpp"
#include "edgetk/engine.hpp"
#include "edgetk/log_mel.hpp"

namespace edgetk {

/// Rows of class scores, one for each step that has a decision; valid until the stream is used again.
struct Scores {
  const float* data = nullptr;
  std::size_t rows = 0, classes = 0;

  bool empty() const { return rows == 0; }
  const float* row(std::size_t i) const { return data + i * classes; }
  const float* last() const { return row(rows - 1); }
};

/// What a row of scores stands for.
enum class Scoring {
  running,    ///< the model's decision on all that was heard since the start: right for one clip
  each_frame  ///< this frame alone, to be smoothed by whoever reads it: right for sound without an end. Before every step the
              ///< states named state_head_…, which add up over the stream, are put back to their first values.
};

struct StreamOptions {
  Scoring scoring = Scoring::running;
  std::size_t longest_push = 16000;  ///< samples that a push hands in at most without making the list of scores grow
};

/// One stream of sound or frames. Pushing allocates nothing, unless a push is longer than `longest_push`.
class Stream {
 public:
  Stream(std::unique_ptr<Engine> engine, const Description& description, const StreamOptions& options = {})
      : engine_(std::move(engine)), d_(description), options_(options) {
    if (d_.states.empty()) throw Error(who() + "must have states, got none; export its stream form (model.stream.onnx)");
    if (d_.inputs.size() != 1 || d_.outputs.empty()) {
      throw Error(who() + "must have one input besides its states, got " + std::to_string(d_.inputs.size()) +
                  "; use its session directly");
    }
    for (std::size_t i = 0; i < d_.states.size(); ++i) {
      if (d_.states[i].tensor.name.rfind("state_head_", 0) == 0) sums_.push_back(i);
    }
    valid_ = d_.state_index("state_valid");
    if (options_.scoring == Scoring::each_frame && sums_.empty()) {
      throw Error(who() + "must have states named state_head_… to score each frame, got none; use its running decision");
    }
    std::size_t rows = d_.lookahead_steps() + 1;
    if (d_.log_mel) {
      if (static_cast<std::size_t>(d_.log_mel->n_mels) != features()) {
        throw Error(who() + "must take the " + std::to_string(d_.log_mel->n_mels) +
                    " bands of its front end, got an input of " + std::to_string(features()) + " numbers; export it again");
      }
      log_mel_.emplace(*d_.log_mel);
      rows += std::max<std::size_t>(options_.longest_push / static_cast<std::size_t>(d_.log_mel->hop_samples) + 1,
                                    static_cast<std::size_t>(d_.log_mel->frames));
    }
    scores_.reserve(rows * classes());
    reset();
  }

  const Description& description() const { return d_; }
  std::size_t features() const { return d_.inputs[0].size(); }
  std::size_t classes() const { return d_.outputs[0].size(); }
  /// Steps since the start.
  std::size_t steps() const { return steps_; }

  /// Hear `n` samples in [-1, 1] at the front end's rate: one row for each frame they complete, `lookahead_s` late, so that the
  /// first frames of a stream give none.
  Scores push(const float* samples, std::size_t n) {
    if (!log_mel_) {
      throw Error(who() + "must name the front end kaldi-log-mel to hear samples, got " +
                  (d_.front_end.empty() ? "none" : "\"" + d_.front_end + "\"") + "; push its features with step()");
    }
    scores_.clear();
    log_mel_->push(samples, n, [this](const float* frame) { advance(frame); });
    return found();
  }

  /// One step of the model on `features()` numbers, for models without a front end, or with one of the caller's own.
  Scores step(const float* frame) {
    scores_.clear();
    advance(frame);
    return found();
  }

  /// End the stream: the rows that still wait for look-ahead. A model tells by its state `state_valid` where sound ends; one
  /// without it is given steps of zeros. Only reset() is possible afterwards.
  Scores flush() {
    scores_.clear();
    finish();
    return found();
  }

  /// End a clip that is shorter than the whole input the model was trained on: padding frames, then the look-ahead. The last
  /// row is the decision on the clip.
  Scores flush_clip() {
    scores_.clear();
    if (d_.log_mel && steps_ < static_cast<std::size_t>(d_.log_mel->frames)) {
      const std::vector<float> padding(features(), static_cast<float>(d_.log_mel->pad_normalised));
      while (steps_ < static_cast<std::size_t>(d_.log_mel->frames)) advance(padding.data());
    }
    finish();
    return found();
  }

  /// Begin anew: every state at its first value, nothing heard.
  void reset() {
    for (std::size_t i = 0; i < d_.states.size(); ++i) engine_->restart(i);
    if (log_mel_) log_mel_->reset();
    scores_.clear();
    steps_ = 0;
    ended_ = false;
  }

 private:
  std::unique_ptr<Engine> engine_;
  Description d_;
  StreamOptions options_;
  std::optional<LogMel> log_mel_;
  std::vector<std::size_t> sums_;
  std::size_t valid_ = 0, steps_ = 0;
  std::vector<float> scores_;
  bool ended_ = false;

  std::string who() const { return "stream of " + d_.name + ": the model "; }

  void advance(const float* frame) {
    if (ended_) throw Error("stream of " + d_.name + ": must go on before its end, got more after flush(); call reset() first");
    if (frame) {
      std::copy(frame, frame + features(), engine_->input());
    } else {
      std::fill(engine_->input(), engine_->input() + features(), 0.0f);
    }
    if (options_.scoring == Scoring::each_frame) {
      for (const std::size_t i : sums_) engine_->restart(i);
    }
    engine_->step();
    if (steps_++ >= d_.lookahead_steps()) scores_.insert(scores_.end(), engine_->output(), engine_->output() + classes());
  }

  void finish() {
    if (!ended_ && valid_ < d_.states.size()) engine_->clear_first(valid_);
    for (std::size_t i = 0; i < d_.lookahead_steps(); ++i) advance(nullptr);
    ended_ = true;
  }

  Scores found() const { return {scores_.data(), scores_.size() / classes(), classes()}; }
};

}  // namespace edgetk
