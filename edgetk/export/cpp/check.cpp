// Replays test data and compares with what Python computed: `edgetk_check NAME MODEL FOLDER [ENGINE]` ends with 0 only if all
// is equal. ENGINE is a library of generated C, to be run instead of ONNX Runtime.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>

#include "edgetk.hpp"
#include "npy.hpp"

namespace {

std::string model_file, folder, engine;

edgetk::Model load() {
  edgetk::Options options;
  options.engine_library = engine;
  return edgetk::Model::load(model_file, options);
}

/// What may differ: shares of the largest number, by name, from bounds.json.
double bound(const std::string& name) {
  std::ifstream file(folder + "bounds.json");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return edgetk::Json::parse(text).at(name, edgetk::Json::Kind::number).number;
}

/// Compares rows as they come with the rows of a file.
class Comparison {
 public:
  Comparison(const std::string& name, double relative, bool absolute = false)
      : name_(name), expected_(read_npy(folder + name)), allowed_(relative) {
    if (absolute) return;
    double scale = 0;
    for (const float v : expected_.values) scale = std::max(scale, std::fabs(static_cast<double>(v)));
    allowed_ *= scale;
  }

  void row(const float* values) {
    if (row_ >= expected_.rows())
      throw edgetk::Error(name_ + ": must have " + std::to_string(expected_.rows()) + " rows, got more");
    for (std::size_t i = 0; i < expected_.columns(); ++i) {
      const double difference = std::fabs(static_cast<double>(values[i]) - static_cast<double>(expected_.row(row_)[i]));
      if (!std::isfinite(difference)) {  // a NaN would compare as small
        largest_ = HUGE_VAL;
        break;
      }
      largest_ = std::max(largest_, difference);
    }
    ++row_;
  }

  /// Print the result; true where all rows came and all were equal within the bound.
  bool done() const {
    const bool good = largest_ <= allowed_ && row_ == expected_.rows();
    std::printf("%s: %zu of %zu rows, largest difference %.3g, allowed %.3g: %s\n", name_.c_str(), row_, expected_.rows(),
                largest_, allowed_, good ? "equal" : "NOT EQUAL");
    return good;
  }

 private:
  std::string name_;
  Array expected_;
  double allowed_, largest_ = 0;
  std::size_t row_ = 0;
};

void rows(Comparison& comparison, const edgetk::Scores& scores) {
  for (std::size_t i = 0; i < scores.rows; ++i) comparison.row(scores.row(i));
}

/// Features step by step, then the flush: every row of scores. Twice, since reset() has to forget the first time.
bool steps(edgetk::Scoring scoring, const std::string& expected) {
  const edgetk::Model model = load();
  const Array features = read_npy(folder + "features.npy");
  edgetk::Stream stream = model.stream({scoring});
  bool good = true;
  for (int time = 0; time < 2; ++time) {
    Comparison comparison(expected, bound("scores"));
    for (std::size_t t = 0; t < features.rows(); ++t) rows(comparison, stream.step(features.row(t)));
    rows(comparison, stream.flush());
    good = comparison.done() && good;
    stream.reset();
  }
  return good;
}

bool log_mel() {
  const edgetk::Model model = load();
  edgetk::LogMel front_end(model.description().log_mel.value());
  const std::vector<float> samples = edgetk::read_wav(folder + "clip.wav", front_end.constants().sample_rate);
  Comparison comparison("frames.npy", bound("log_mel"), true);
  front_end.push(samples.data(), samples.size(), [&](const float* frame) { comparison.row(frame); });
  return comparison.done();
}

/// The same sound in pieces of odd lengths, padded and flushed as a clip.
bool clip() {
  const edgetk::Model model = load();
  const std::vector<float> samples = edgetk::read_wav(folder + "clip.wav", model.description().log_mel.value().sample_rate);
  edgetk::Stream stream = model.stream();
  Comparison comparison("clip_scores.npy", bound("clip_scores"));
  for (std::size_t at = 0, piece = 1; at < samples.size(); at += piece, piece = piece * 7 % 1009 + 1) {
    rows(comparison, stream.push(samples.data() + at, std::min(piece, samples.size() - at)));
  }
  rows(comparison, stream.flush_clip());
  return comparison.done();
}

/// A model without states: whole inputs, one after another.
bool whole() {
  const edgetk::Model model = load();
  const Array inputs = read_npy(folder + "inputs.npy");
  Comparison comparison("outputs.npy", bound("scores"));
  for (std::size_t i = 0; i < inputs.rows(); ++i) {
    comparison.row(model.run({inputs.row(i), inputs.row(i) + inputs.columns()}).data());
  }
  return comparison.done();
}

}  // namespace

int main(int count, char** values) {
  const std::map<std::string, std::function<bool()>> checks = {
      {"steps", [] { return steps(edgetk::Scoring::running, "scores.npy"); }},
      {"each_frame", [] { return steps(edgetk::Scoring::each_frame, "frame_scores.npy"); }},
      {"log_mel", log_mel},
      {"clip", clip},
      {"whole", whole}};
  try {
    const auto found = checks.find(count == 4 || count == 5 ? values[1] : "");
    if (found == checks.end()) {
      throw edgetk::Error("usage: edgetk_check steps|each_frame|log_mel|clip|whole MODEL FOLDER [ENGINE]");
    }
    model_file = values[2];
    folder = values[3] + std::string("/");
    if (count == 5) engine = values[4];
    return found->second() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "edgetk_check: %s\n", error.what());
    return 1;
  }
}
