// What tests ask of the runner that its own programs do not show: one word says what, the rest are its arguments.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "edgetk.hpp"
#include "npy.hpp"

namespace {
bool counting = false, inside_runtime = false;
long allocated = 0;
}  // namespace

void* operator new(std::size_t size) {
  if (counting && !inside_runtime) ++allocated;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using Words = std::vector<std::string>;

void print(const float* row, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) std::printf(i ? " %.9g" : "%.9g", static_cast<double>(row[i]));
  std::puts("");
}

void print(const edgetk::Scores& scores) {
  for (std::size_t i = 0; i < scores.rows; ++i) print(scores.row(i), scores.classes);
}

/// A model, or MODEL+LIBRARY: run by generated C.
edgetk::Model load(const std::string& word) {
  const auto plus = word.find('+');
  edgetk::Options options;
  if (plus != std::string::npos) options.engine_library = word.substr(plus + 1);
  return edgetk::Model::load(word.substr(0, plus), options);
}

/// frames MODEL WAV PIECE: log-mel frames of a sound pushed in pieces
void frames(const Words& words) {
  edgetk::LogMel front_end(load(words[0]).description().log_mel.value());
  const auto samples = edgetk::read_wav(words[1], front_end.constants().sample_rate);
  const std::size_t piece = std::stoul(words[2]);
  for (std::size_t at = 0; at < samples.size(); at += piece) {
    front_end.push(samples.data() + at, std::min(piece, samples.size() - at),
                   [&](const float* frame) { print(frame, static_cast<std::size_t>(front_end.constants().n_mels)); });
  }
}

/// steps MODEL FEATURES.npy running|each_frame: all rows, flush included
void steps(const Words& words) {
  const auto model = load(words[0]);
  auto stream = model.stream({words[2] == "running" ? edgetk::Scoring::running : edgetk::Scoring::each_frame});
  const Array features = read_npy(words[1]);
  for (std::size_t t = 0; t < features.rows(); ++t) print(stream.step(features.row(t)));
  print(stream.flush());
}

/// two MODEL FEATURES.npy: two streams in turns, the second one backwards; the model itself is gone by then
void two(const Words& words) {
  auto streams = [&] {
    const auto model = load(words[0]);
    std::vector<edgetk::Stream> made;
    made.push_back(model.stream());
    made.push_back(model.stream());
    return made;
  }();
  const Array features = read_npy(words[1]);
  for (std::size_t t = 0; t < features.rows(); ++t) {
    print(streams[0].step(features.row(t)));
    streams[1].step(features.row(features.rows() - 1 - t));
  }
}

/// detect MODEL ROWS.npy WINDOW THRESHOLD HOLD REFRACTORY [WORD...]
void detect(const Words& words) {
  const auto model = load(words[0]);
  edgetk::Rule rule{
      std::stoi(words[2]), std::stod(words[3]), std::stoi(words[4]), std::stoi(words[5]), {words.begin() + 6, words.end()}};
  edgetk::Detector detector(model.description(), rule);
  const Array rows = read_npy(words[1]);
  edgetk::Detection found;
  for (int time = 0; time < 2; ++time) {
    for (std::size_t t = 0; t < rows.rows(); ++t) {
      if (detector.push(rows.row(t), found)) {
        std::printf("%lld %zu %.17g %.6f\n", static_cast<long long>(found.step), found.label, found.score, found.heard_s);
      }
    }
    detector.reset();
    std::puts("again");
  }
}

/// allocations MODEL WAV: how many there were while a warm stream heard the sound and a detector read its rows
const OrtApi* real = nullptr;
OrtApi watched;
OrtStatus* run_watched(OrtSession* session, const OrtRunOptions* options, const OrtIoBinding* binding) {
  inside_runtime = true;
  OrtStatus* status = real->RunWithBinding(session, options, binding);
  inside_runtime = false;
  return status;
}
edgetk::Model watched_model(const std::string& word) {
  if (word.find('+') != std::string::npos) return load(word);
  const auto runtime = edgetk::Runtime::load();
  real = runtime->operator->();
  watched = *real;
  watched.RunWithBinding = run_watched;
  const OrtApiBase base = {[](std::uint32_t) -> const OrtApi* { return &watched; }, []() -> const char* { return "watched"; }};
  edgetk::Options options;
  options.runtime = std::make_shared<const edgetk::Runtime>(&base);
  return edgetk::Model::load(word, options);
}
void allocations(const Words& words) {
  const auto model = watched_model(words[0]);
  const auto samples = edgetk::read_wav(words[1], model.description().log_mel.value().sample_rate);
  edgetk::Detector detector(model.description());
  counting = true;
  auto stream = model.stream({edgetk::Scoring::each_frame, 160});
  const bool seen = allocated > 0;  // the counter works
  allocated = 0;
  edgetk::Detection found;
  for (int time = 0; time < 2; ++time) {
    for (std::size_t at = 0; at + 160 <= samples.size(); at += 160) {
      const edgetk::Scores scores = stream.push(samples.data() + at, 160);
      for (std::size_t i = 0; i < scores.rows; ++i) detector.push(scores.row(i), found);
    }
    stream.flush();
    stream.reset();
    detector.reset();
  }
  counting = false;
  std::printf("%zu hops, %ld allocations; making a stream: %s\n", samples.size() / 160, allocated, seen ? "some" : "none");
}

/// metadata TEXT...: a description read from key=value texts, over a graph x, state_a -> y, state_a_out
void metadata(const Words& words) {
  std::map<std::string, std::string> texts;
  for (const auto& word : words) texts[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  const auto lookup = [&](const std::string& key) -> std::optional<std::string> {
    return texts.count(key) ? std::optional<std::string>(texts[key]) : std::nullopt;
  };
  const auto d = edgetk::Description::read("m.onnx", lookup, {{"x", {1, 1, 3}}, {"state_a", {1, 2}}},
                                           {{"y", {1, 1, 2}}, {"state_a_out", {1, 2}}});
  std::printf("%s|%s|%s|%zu|%g|%g|%zu", d.name.c_str(), d.quantization.c_str(), d.front_end.c_str(), d.states.size(),
              d.period_s, d.lookahead_s, d.lookahead_steps());
  for (std::size_t i = 0; i < 2; ++i) std::printf("|%s", d.label(i).c_str());
  for (const float v : d.states[0].init) std::printf("|%g", static_cast<double>(v));
  std::puts("");
}

/// misuse MODEL how
void misuse(const Words& words) {
  const auto model = load(words[0]);
  const std::vector<float> samples(1600);
  if (words[1] == "after flush") {
    auto stream = model.stream();
    stream.flush();
    stream.push(samples.data(), samples.size());
  } else if (words[1] == "run a stream") {
    model.run(samples);
  } else if (words[1] == "stream a clip") {
    model.stream();
  } else if (words[1] == "hear features") {
    model.stream().push(samples.data(), samples.size());
  } else if (words[1] == "each frame") {
    model.stream({edgetk::Scoring::each_frame});
  } else if (words[1] == "short input") {
    model.run({1.0f});
  }
}

/// json TEXT: parsed and written again
void write(const edgetk::Json& value) {
  using Kind = edgetk::Json::Kind;
  if (value.kind == Kind::text) std::printf("%s", edgetk::quoted(value.text).c_str());
  if (value.kind == Kind::number) std::printf("%.17g", value.number);
  if (value.kind == Kind::boolean) std::printf(value.number != 0 ? "true" : "false");
  if (value.kind == Kind::null) std::printf("null");
  const char* between = "";
  if (value.kind == Kind::list) {
    std::printf("[");
    for (const auto& item : value.items) {
      std::printf("%s", between);
      write(item);
      between = ",";
    }
    std::printf("]");
  }
  if (value.kind == Kind::object) {
    std::printf("{");
    for (const auto& [key, item] : value.fields) {
      std::printf("%s%s:", between, edgetk::quoted(key).c_str());
      write(item);
      between = ",";
    }
    std::printf("}");
  }
}
void json(const Words& words) {
  write(edgetk::Json::parse(words[0]));
  std::puts("");
}

}  // namespace

int main(int count, char** values) {
  const std::map<std::string, std::function<void(const Words&)>> tasks = {
      {"frames", frames},           {"steps", steps},       {"two", two},       {"detect", detect},
      {"allocations", allocations}, {"metadata", metadata}, {"misuse", misuse}, {"json", json}};
  try {
    tasks.at(values[1])(Words(values + 2, values + count));
  } catch (const edgetk::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
