/// Reading JSON, as much as the metadata of a model needs. Values are plain members; a wrong type is an Error that names the
/// key.
#pragma once

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "edgetk/error.hpp"

namespace edgetk {

struct Json {
  enum class Kind { null, boolean, number, text, list, object };
  Kind kind = Kind::null;
  double number = 0;  ///< of a number; 1 or 0 of a boolean
  std::string text;
  std::vector<Json> items;                           ///< of a list
  std::vector<std::pair<std::string, Json>> fields;  ///< of an object, in the order of the text

  /// The value under `key`, or nullptr where there is none (or null).
  const Json* find(const std::string& key) const {
    for (const auto& [name, value] : fields) {
      if (name == key) return value.kind == Kind::null ? nullptr : &value;
    }
    return nullptr;
  }

  /// The value under `key`, which must be of `wanted` kind. Throws Error.
  const Json& at(const std::string& key, Kind wanted) const {
    const Json* found = find(key);
    if (!found || found->kind != wanted) {
      throw Error("key " + key + " must be a " + word(wanted) + ", got " + (found ? "a " + word(found->kind) : "nothing"));
    }
    return *found;
  }

  static std::string word(Kind kind) {
    static const char* const words[] = {"null", "boolean", "number", "text", "list", "JSON object"};
    return words[static_cast<int>(kind)];
  }

  /// Parse a whole text. Throws Error that tells where it stops making sense.
  static Json parse(const std::string& source);
};

namespace detail {

class JsonReader {
 public:
  explicit JsonReader(const std::string& source) : source_(source) {}

  Json whole() {
    Json value = read(0);
    skip();
    if (at_ != source_.size()) fail("the end");
    return value;
  }

 private:
  static constexpr int deepest = 64;
  const std::string& source_;
  std::size_t at_ = 0;

  [[noreturn]] void fail(const std::string& wanted) const {
    throw Error("JSON must have " + wanted + " at character " + std::to_string(at_) + ", got \"" + source_.substr(at_, 12) +
                "\"");
  }
  void skip() {
    while (at_ < source_.size() &&
           (source_[at_] == ' ' || source_[at_] == '\n' || source_[at_] == '\t' || source_[at_] == '\r'))
      ++at_;
  }
  bool take(char c) {
    skip();
    const bool here = at_ < source_.size() && source_[at_] == c;
    at_ += here;
    return here;
  }
  bool take_word(const char* word) {
    const std::string text(word);
    const bool here = source_.compare(at_, text.size(), text) == 0;
    if (here) at_ += text.size();
    return here;
  }

  Json read(int depth) {
    if (depth > deepest) fail("fewer levels");
    skip();
    Json value;
    if (take('{')) {
      value.kind = Json::Kind::object;
      if (take('}')) return value;
      do {
        skip();
        std::string key = string();
        if (!take(':')) fail("a colon");
        value.fields.emplace_back(std::move(key), read(depth + 1));
      } while (take(','));
      if (!take('}')) fail("a closing brace");
    } else if (take('[')) {
      value.kind = Json::Kind::list;
      if (take(']')) return value;
      do value.items.push_back(read(depth + 1));
      while (take(','));
      if (!take(']')) fail("a closing bracket");
    } else if (at_ < source_.size() && source_[at_] == '"') {
      value.kind = Json::Kind::text;
      value.text = string();
    } else if (take_word("true") || take_word("false")) {
      value.kind = Json::Kind::boolean;
      value.number = source_[at_ - 2] == 'u';  // tr*u*e, fal*s*e
    } else if (!take_word("null")) {
      value.kind = Json::Kind::number;
      const char* start = source_.c_str() + at_;
      char* end = nullptr;
      value.number = std::strtod(start, &end);
      if (end == start) fail("a value");
      at_ += static_cast<std::size_t>(end - start);
    }
    return value;
  }

  std::string string() {
    if (at_ >= source_.size() || source_[at_] != '"') fail("a text in quotes");
    std::string out;
    for (++at_; at_ < source_.size() && source_[at_] != '"'; ++at_) {
      if (source_[at_] != '\\') {
        out += source_[at_];
        continue;
      }
      if (++at_ >= source_.size()) fail("a closing quote");
      static const std::string codes = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
      if (const auto which = codes.find(source_[at_]); which != std::string::npos) {
        out += meant[which];
      } else if (source_[at_] == 'u') {
        ++at_;
        unsigned code = hex();
        if (code >= 0xD800 && code < 0xDC00 && source_.compare(at_, 2, "\\u") == 0) {
          at_ += 2;
          code = 0x10000 + ((code - 0xD800) << 10) + (hex() - 0xDC00);
        }
        append_utf8(out, code);
        --at_;
      } else {
        fail("an escape");
      }
    }
    if (at_ >= source_.size()) fail("a closing quote");
    ++at_;
    return out;
  }

  unsigned hex() {
    const std::string digits = source_.substr(at_, 4);
    if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) fail("four hex digits");
    at_ += 4;
    return static_cast<unsigned>(std::strtoul(digits.c_str(), nullptr, 16));
  }

  static void append_utf8(std::string& out, unsigned code) {
    if (code < 0x80) {
      out += static_cast<char>(code);
      return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned lead[] = {0, 0xC0, 0xE0, 0xF0};
    out += static_cast<char>(lead[more] | (code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  }
};

}  // namespace detail

inline Json Json::parse(const std::string& source) { return detail::JsonReader(source).whole(); }

/// `text` in quotes, as JSON has it.
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      static const char digits[] = "0123456789abcdef";
      out += std::string("\\u00") + digits[(c >> 4) & 1] + digits[c & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace edgetk
