/// What an ONNX file says about its graph, read without a runtime: inputs, outputs and metadata. Weights are passed over.
///
/// The file is one protobuf message. A field is a number (field << 3 | kind) and then a number of its own (kind 0), eight or four
/// bytes (1, 5), or a length and so many bytes (2). Source: onnx.proto3 of ONNX 1.16; the fields have not changed since.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "edgetk/description.hpp"
#include "edgetk/error.hpp"

namespace edgetk {

/// The bytes of a model file. Throws Error for one that is not there or empty.
inline std::string read_model(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream read;
  read << file.rdbuf();
  std::string content = read.str();
  if (content.empty()) {
    throw Error("model " + path + ": must be a readable ONNX file, got " +
                (file.is_open() ? "nothing in it" : "no such file") + "; check the path");
  }
  return content;
}

namespace detail {

/// The fields of one protobuf message, one after another.
class Wire {
 public:
  unsigned field = 0;
  std::uint64_t number = 0;  ///< of kind 0
  std::string_view bytes;    ///< of kind 2

  Wire(const std::string& who, std::string_view message) : who_(who), rest_(message) {}

  /// Go to the next field; false at the end. Throws Error where the bytes are no message.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field = static_cast<unsigned>(tag >> 3);
    const auto kind = tag & 7;
    if (kind == 0) {
      number = varint();
    } else if (kind == 1 || kind == 5) {
      take(kind == 1 ? 8 : 4);
    } else if (kind == 2) {
      bytes = take(varint());
    } else {
      fail();
    }
    return true;
  }
  Wire inside() const { return {who_, bytes}; }
  std::string text() const { return std::string(bytes); }

 private:
  const std::string& who_;
  std::string_view rest_;

  [[noreturn]] void fail() const { throw Error(who_ + ": must be an ONNX file, got other bytes; export it again"); }

  std::string_view take(std::uint64_t n) {
    if (n > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(n));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail();
  }
};

/// A ValueInfoProto: name, and a type that holds a tensor's element type and shape.
inline Tensor tensor_of(const std::string& who, Wire value) {
  Tensor tensor;
  std::uint64_t element = 0;
  while (value.next()) {
    if (value.field == 1) tensor.name = value.text();
    if (value.field != 2) continue;
    for (Wire type = value.inside(); type.next();) {
      if (type.field != 1) continue;
      for (Wire of = type.inside(); of.next();) {
        if (of.field == 1) element = of.number;
        if (of.field != 2) continue;
        for (Wire shape = of.inside(); shape.next();) {
          std::int64_t size = -1;
          for (Wire dim = shape.inside(); dim.next();) {
            if (dim.field == 1) size = static_cast<std::int64_t>(dim.number);
          }
          tensor.shape.push_back(size);
        }
      }
    }
  }
  if (element != 1) {
    throw Error(who + ": " + tensor.name +
                " must be a float32 tensor, got another type; export it with float32 inputs and outputs");
  }
  return tensor;
}

}  // namespace detail

/// The description of the model file `path` with the bytes `content`. Throws Error.
inline Description describe(const std::string& path, const std::string& content) {
  const std::string who = "model " + path;
  std::vector<Tensor> in, out;
  std::map<std::string, std::string> metadata;
  for (detail::Wire model(who, content); model.next();) {
    if (model.field == 7) {
      for (detail::Wire graph = model.inside(); graph.next();) {
        if (graph.field == 11) in.push_back(detail::tensor_of(who, graph.inside()));
        if (graph.field == 12) out.push_back(detail::tensor_of(who, graph.inside()));
      }
    } else if (model.field == 14) {
      std::string key, value;
      for (detail::Wire entry = model.inside(); entry.next();) (entry.field == 1 ? key : value) = entry.text();
      metadata[key] = value;
    }
  }
  const auto lookup = [&](const std::string& key) -> std::optional<std::string> {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::nullopt : std::optional<std::string>(found->second);
  };
  return Description::read(path, lookup, in, out);
}

}  // namespace edgetk
