/// What a model file says about itself: tensors, states, labels, timing, front end. Required keys are missed with one clear
/// sentence, optional ones have defaults.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "edgetk/error.hpp"
#include "edgetk/json.hpp"

namespace edgetk {

/// One tensor of the graph; a dimension that the graph leaves open is -1.
struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;

  /// Numbers in it, with open dimensions taken as 1.
  std::size_t size() const {
    std::size_t product = 1;
    for (const auto d : shape) {
      if (d == 0) return 0;
      if (d > 1) product *= static_cast<std::size_t>(d);
    }
    return product;
  }
};

/// A carried tensor: input `tensor` takes what output `output` gave one step before, `init` at the start of a stream.
struct State {
  Tensor tensor;
  std::string output;
  std::vector<float> init;  ///< as many numbers as the tensor has
  std::string holds = "values";
};

/// The constants of the Kaldi-style log-mel front end; defaults are those of Speech Commands in edgetk.
struct LogMelConstants {
  int sample_rate = 16000, window_samples = 400, hop_samples = 160, n_fft = 512, n_mels = 128;
  double low_hz = 20, high_hz = 8000, preemphasis = 0.97, log_floor = 1.1920929e-7, mean = 0, std_times_2 = 1;
  int frames = 0;             ///< frames of a whole clip, padding included; 0: not told
  double pad_normalised = 0;  ///< what such padding holds
};

struct Description {
  std::string name = "model", task, quantization = "unknown", parity;
  std::string graph_sha256;  ///< of its operators and weights; "" where an older edgetk wrote the file
  std::vector<std::string> labels;
  std::vector<Tensor> inputs, outputs;  ///< without the states
  std::vector<State> states;
  double period_s = 0;     ///< time between two steps; 0: not told
  double lookahead_s = 0;  ///< how far an output is behind the newest input
  std::optional<LogMelConstants> log_mel;
  std::string front_end;  ///< its kind; "" for none

  /// Steps that an output is late.
  std::size_t lookahead_steps() const {
    return period_s > 0 ? static_cast<std::size_t>(std::lround(lookahead_s / period_s)) : 0;
  }
  /// The name of a class.
  std::string label(std::size_t index) const {
    return index < labels.size() ? labels[index] : "class " + std::to_string(index);
  }

  /// Place of a state by name, or states.size().
  std::size_t state_index(const std::string& state_name) const {
    std::size_t i = 0;
    while (i < states.size() && states[i].tensor.name != state_name) ++i;
    return i;
  }

  /// `who` names the file in errors; `lookup(key)` gives the text of a metadata key, or nothing; `in` and `out` are the graph's
  /// tensors in order. A graph without metadata is a stream where inputs state_… have outputs state_…_out, zero at first.
  using Lookup = std::function<std::optional<std::string>(const std::string&)>;
  static Description read(const std::string& who, const Lookup& lookup, const std::vector<Tensor>& in,
                          const std::vector<Tensor>& out);
};

namespace detail {

/// The metadata of one file, with errors that name file and key.
class MetadataReader {
 public:
  MetadataReader(std::string who, Description::Lookup lookup) : who_(std::move(who)), lookup_(std::move(lookup)) {}

  std::string text(const std::string& key, const std::string& otherwise) const { return lookup_(key).value_or(otherwise); }

  double number(const std::string& key, double otherwise) const {
    const auto found = lookup_(key);
    if (!found) return otherwise;
    char* end = nullptr;
    const double value = std::strtod(found->c_str(), &end);
    if (end == found->c_str() || *end || !(value >= 0) || std::isinf(value))
      fail(key, "must be a number from 0 on", "\"" + *found + "\"");
    return value;
  }

  /// One label a line, or a JSON list.
  std::vector<std::string> lines(const std::string& key) const {
    std::vector<std::string> found;
    const std::string all = text(key, "");
    if (!all.empty() && all[0] == '[') {
      const auto list = json(key, Json::Kind::list);
      for (const Json& item : list->items) found.push_back(item.text);
      return found;
    }
    for (std::size_t start = 0; start < all.size();) {
      const std::size_t end = std::min(all.find('\n', start), all.size());
      if (end > start) found.push_back(all.substr(start, end - start));
      start = end + 1;
    }
    return found;
  }

  std::optional<Json> json(const std::string& key, Json::Kind kind) const {
    const auto found = lookup_(key);
    if (!found) return std::nullopt;
    try {
      Json value = Json::parse(*found);
      if (value.kind != kind) throw Error("a " + Json::word(value.kind));
      return value;
    } catch (const Error& error) {
      fail(key, "must be a " + Json::word(kind), error.what());
    }
  }

  [[noreturn]] void fail(const std::string& key, const std::string& must, const std::string& got) const {
    throw Error("model " + who_ + ": metadata " + key + " " + must + ", got: " + got + "; export the model again");
  }

 private:
  std::string who_;
  Description::Lookup lookup_;
};

inline LogMelConstants log_mel_constants(const MetadataReader& reader, const Json& said) {
  LogMelConstants c;
  const auto number = [&](const char* key, double otherwise, double low, double high) {
    const Json* found = said.find(key);
    const double value = found ? found->number : otherwise;
    if ((found && found->kind != Json::Kind::number) || !(value >= low && value <= high)) {
      reader.fail("front_end",
                  std::string("must have ") + key + " between " + std::to_string(low) + " and " + std::to_string(high),
                  found && found->kind == Json::Kind::text ? found->text : std::to_string(value));
    }
    return value;
  };
  const auto known = [&](const char* key, const char* value) {
    const Json* found = said.find(key);
    if (found && found->text != value)
      reader.fail("front_end", std::string("must have ") + key + " \"" + value + "\"", found->text);
  };
  known("mel_scale", "1127 ln(1 + f / 700)");
  known("remove_dc", "per frame, before pre-emphasis");
  known("window", "hann-symmetric");
  known("spectrum", "power");
  known("log", "natural");
  c.sample_rate = static_cast<int>(number("sample_rate", c.sample_rate, 1000, 1e6));
  c.n_fft = static_cast<int>(number("n_fft", c.n_fft, 16, 1 << 16));
  c.window_samples = static_cast<int>(number("window_samples", c.window_samples, 2, c.n_fft));
  c.hop_samples = static_cast<int>(number("hop_samples", c.hop_samples, 1, c.window_samples));
  c.n_mels = static_cast<int>(number("n_mels", c.n_mels, 1, 4096));
  c.high_hz = number("high_hz", c.high_hz, 1, c.sample_rate / 2.0);
  c.low_hz = number("low_hz", c.low_hz, 0, c.high_hz);
  c.preemphasis = number("preemphasis", c.preemphasis, 0, 1);
  c.log_floor = number("log_floor", c.log_floor, 1e-30, 1);
  c.mean = number("mean", c.mean, -1e6, 1e6);
  c.std_times_2 = number("std_times_2", c.std_times_2, 1e-6, 1e6);
  c.frames = static_cast<int>(number("frames", c.frames, 0, 1e6));
  c.pad_normalised = number("pad_normalised", c.pad_normalised, -1e6, 1e6);
  if (c.n_fft & (c.n_fft - 1)) reader.fail("front_end", "must have a power of two as n_fft", std::to_string(c.n_fft));
  return c;
}

inline State state_of(const MetadataReader& reader, const Json& said) {
  State state;
  try {
    state.tensor.name = said.at("name", Json::Kind::text).text;
    state.output = said.at("output", Json::Kind::text).text;
    for (const Json& d : said.at("shape", Json::Kind::list).items)
      state.tensor.shape.push_back(static_cast<std::int64_t>(d.number));
    for (const Json& v : said.at("init", Json::Kind::list).items) state.init.push_back(static_cast<float>(v.number));
  } catch (const Error& error) {
    reader.fail("states", "must tell name, output, shape and init of each state", error.what());
  }
  if (const Json* holds = said.find("holds")) state.holds = holds->text;
  return state;
}

}  // namespace detail

inline Description Description::read(const std::string& who, const Lookup& lookup, const std::vector<Tensor>& in,
                                     const std::vector<Tensor>& out) {
  const detail::MetadataReader reader(who, lookup);
  const std::string version = reader.text("schema_version", "1");
  if (version != "1") reader.fail("schema_version", "must be 1, which this runner reads", version);
  Description d;
  d.name = reader.text("model_type", d.name);
  d.task = reader.text("task", "");
  d.quantization = reader.text("quantization", d.quantization);
  d.parity = reader.text("parity", "");
  d.graph_sha256 = reader.text("graph_sha256", "");
  d.labels = reader.lines("labels");
  d.period_s = reader.number("period_s", 0);
  d.lookahead_s = reader.number("lookahead_s", 0);

  const auto place = [](const std::vector<Tensor>& tensors, const std::string& name) {
    std::size_t i = 0;
    while (i < tensors.size() && tensors[i].name != name) ++i;
    return i;
  };
  if (const auto said = reader.json("states", Json::Kind::list)) {
    for (const Json& item : said->items) d.states.push_back(detail::state_of(reader, item));
  } else {
    for (const Tensor& tensor : in) {
      if (tensor.name.rfind("state_", 0) == 0) d.states.push_back({tensor, tensor.name + "_out", {}, "values"});
    }
  }
  for (State& state : d.states) {
    const std::string& name = state.tensor.name;
    const auto from = place(in, name), to = place(out, state.output);
    if (from == in.size()) reader.fail("states", "must name inputs of the graph", name);
    if (to == out.size()) reader.fail("states", "must name outputs of the graph", state.output);
    if (in[from].shape != state.tensor.shape || out[to].shape != state.tensor.shape) {
      reader.fail("states", "must have the graph's shapes", "another one for " + name);
    }
    for (const auto dim : state.tensor.shape) {
      if (dim < 1) reader.fail("states", "must have fixed shapes", "an open dimension in " + name);
    }
    if (state.init.empty()) state.init.assign(state.tensor.size(), 0.0f);
    if (state.init.size() != state.tensor.size()) {
      reader.fail("states", "must have a first value for each number of a state",
                  std::to_string(state.init.size()) + " for the " + std::to_string(state.tensor.size()) + " of " + name);
    }
  }
  const auto carried = [&](const std::string& name) {
    for (const State& s : d.states) {
      if (s.tensor.name == name || s.output == name) return true;
    }
    return false;
  };
  for (const Tensor& tensor : in) {
    if (!carried(tensor.name)) d.inputs.push_back(tensor);
  }
  for (const Tensor& tensor : out) {
    if (!carried(tensor.name)) d.outputs.push_back(tensor);
  }
  if (const auto said = reader.json("front_end", Json::Kind::object)) {
    const Json* kind = said->find("kind");
    d.front_end = kind ? kind->text : "unknown";
    if (d.front_end == "kaldi-log-mel") d.log_mel = detail::log_mel_constants(reader, *said);
  }
  const std::size_t classes =
      d.outputs.empty() || d.outputs[0].shape.empty() ? 0 : static_cast<std::size_t>(d.outputs[0].shape.back());
  if (!d.labels.empty() && d.labels.size() != classes) {
    reader.fail("labels", "must name every class",
                std::to_string(d.labels.size()) + " labels for " + std::to_string(classes) + " classes");
  }
  return d;
}

}  // namespace edgetk
