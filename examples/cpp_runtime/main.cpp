// Listens to a WAV file, or to raw 16-bit mono samples on stdin, and prints detections as lines of JSON.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "edgetk.hpp"
#include "hop_times.hpp"

#ifndef EDGETK_MODEL
#define EDGETK_MODEL "model/model.stream.onnx"
#endif

namespace {

const char usage[] =
    "usage: edgetk_listen [options] FILE.wav | -\n"
    "  -                    raw 16-bit little-endian mono samples on stdin, at the model's rate\n"
    "  --model FILE         the stream form of a model (default: the one beside this program's sources)\n"
    "  --clip               take the file as one clip, and print its scores as one line\n"
    "  --threshold P        probability from which on a word counts (0.95)\n"
    "  --window STEPS       how many steps are averaged (60)\n"
    "  --hold STEPS         how many steps in a row must count (5)\n"
    "  --refractory STEPS   fewest steps between two detections (150)\n"
    "  --word WORD          watch this word only; may be repeated\n"
    "  --onnxruntime FILE   the runtime's library;  --operators FILE  edgetk's native operators\n"
    "  --engine-library F   generated C of the model (edgetk export --c) in its place;  --isa NAME  one of its builds\n";

struct Arguments {
  std::string model = EDGETK_MODEL, source;
  bool clip = false;
  edgetk::Options options;
  edgetk::Rule rule;
};

Arguments read_arguments(int count, char** values) {
  Arguments found;
  for (int i = 1; i < count; ++i) {
    const std::string name = values[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= count) throw edgetk::Error("edgetk_listen: " + name + " must have a value, got none; see --help");
      return values[++i];
    };
    const auto number = [&]() {
      const std::string text = value();
      char* end = nullptr;
      const double parsed = std::strtod(text.c_str(), &end);
      if (text.empty() || *end)
        throw edgetk::Error("edgetk_listen: " + name + " must be a number, got \"" + text + "\"; correct it");
      return parsed;
    };
    const auto whole = [&]() {
      const double parsed = number();
      if (parsed != std::floor(parsed) || std::fabs(parsed) > 1e6)
        throw edgetk::Error("edgetk_listen: " + name + " must be a whole number of steps, got " + std::to_string(parsed) +
                            "; correct it");
      return static_cast<int>(parsed);
    };
    if (name == "--help" || name == "-h") {
      std::fputs(usage, stdout);
      std::exit(0);
    } else if (name == "--model") {
      found.model = value();
    } else if (name == "--clip") {
      found.clip = true;
    } else if (name == "--threshold") {
      found.rule.threshold = number();
    } else if (name == "--window") {
      found.rule.window = whole();
    } else if (name == "--hold") {
      found.rule.hold = whole();
    } else if (name == "--refractory") {
      found.rule.refractory = whole();
    } else if (name == "--word") {
      found.rule.words.push_back(value());
    } else if (name == "--onnxruntime") {
      found.options.onnxruntime = value();
    } else if (name == "--operators") {
      found.options.operators = value();
    } else if (name == "--engine-library") {
      found.options.engine_library = value();
    } else if (name == "--isa") {
      found.options.isa = value();
    } else if (found.source.empty() && (name == "-" || name[0] != '-')) {
      found.source = name;
    } else {
      throw edgetk::Error("edgetk_listen: must know its options, got " + name + "; see --help");
    }
  }
  if (found.source.empty())
    throw edgetk::Error("edgetk_listen: must have a WAV file or -, got nothing to listen to; see --help");
  return found;
}

/// Raw samples on stdin, a piece at a time. `read` throws Error for a WAV file's header, an odd number of bytes, or nothing.
class Stdin {
 public:
  /// Up to `wanted` samples; fewer only at the end.
  std::size_t read(std::vector<float>& samples, std::size_t wanted) {
    bytes_.resize(2 * wanted);
    const std::size_t got = std::fread(bytes_.data(), 1, bytes_.size(), stdin);
    if (first_ && got == 0) throw edgetk::Error("stdin: must hold 16-bit samples, got none; check what writes it");
    if (first_ && got >= 4 && std::memcmp(bytes_.data(), "RIFF", 4) == 0)
      throw edgetk::Error("stdin: must be raw 16-bit samples, got a WAV file; name the file, or drop its header");
    if (got % 2) throw edgetk::Error("stdin: must be 16-bit samples, got an odd number of bytes; check what writes it");
    first_ = false;
    for (std::size_t i = 0; i < got / 2; ++i) samples[i] = edgetk::from_pcm16(bytes_.data() + 2 * i);
    return got / 2;
  }

 private:
  std::vector<unsigned char> bytes_;
  bool first_ = true;
};

void print_clip(const edgetk::Description& d, const edgetk::Scores& scores) {
  std::string line = "{\"scores\":{";
  for (std::size_t i = 0; i < scores.classes; ++i) {
    char number[32];
    std::snprintf(number, sizeof number, "%.6g", static_cast<double>(scores.last()[i]));
    line += (i ? "," : "") + edgetk::quoted(d.label(i)) + ":" + number;
  }
  std::printf("%s}}\n", line.c_str());
}

int run(int count, char** values) {
  const Arguments arguments = read_arguments(count, values);
  const edgetk::Model model = edgetk::Model::load(arguments.model, arguments.options);
  const edgetk::Description& d = model.description();
  if (!d.log_mel)
    throw edgetk::Error(
        "edgetk_listen: the model must hear sound, got one without the front end kaldi-log-mel; use its stream's step()");
  const std::size_t hop = static_cast<std::size_t>(d.log_mel->hop_samples);
  std::vector<float> samples;
  if (arguments.source != "-") samples = edgetk::read_wav(arguments.source, d.log_mel->sample_rate);

  if (arguments.clip) {
    if (arguments.source == "-") throw edgetk::Error("edgetk_listen: --clip must have a WAV file, got stdin; name a file");
    edgetk::Stream stream = model.stream({edgetk::Scoring::running, samples.size()});
    stream.push(samples.data(), samples.size());
    print_clip(d, stream.flush_clip());
    return 0;
  }

  edgetk::Stream stream = model.stream({edgetk::Scoring::each_frame, hop});
  edgetk::Detector detector(d, arguments.rule);
  HopTimes times;
  std::size_t heard = 0, detections = 0;
  edgetk::Detection detection;
  const auto report = [&](const edgetk::Scores& scores) {
    for (std::size_t i = 0; i < scores.rows; ++i) {
      if (!detector.push(scores.row(i), detection)) continue;
      ++detections;
      std::printf("{\"step\":%lld,\"heard_s\":%.3f,\"label\":%s,\"score\":%.4f}\n", static_cast<long long>(detection.step),
                  detection.heard_s, edgetk::quoted(d.label(detection.label)).c_str(), detection.score);
      std::fflush(stdout);
    }
  };
  std::vector<float> chunk(hop);
  Stdin piped;
  for (;;) {
    const float* from = chunk.data();
    std::size_t n = 0;
    if (arguments.source == "-") {
      n = piped.read(chunk, hop);
    } else {
      n = std::min(hop, samples.size() - heard);
      from = samples.data() + heard;
    }
    if (n == 0) break;
    const auto start = std::chrono::steady_clock::now();
    report(stream.push(from, n));
    times.add(std::chrono::steady_clock::now() - start);
    heard += n;
  }
  report(stream.flush());
  const double audio_s = static_cast<double>(heard) / d.log_mel->sample_rate;
  times.print(stderr, model.runtime(), audio_s, d.period_s, detections);
  return 0;
}

}  // namespace

int main(int count, char** values) {
  try {
    return run(count, values);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
