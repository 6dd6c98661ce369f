// Arrays of float32 from .npy files, as numpy.save writes them.
#pragma once

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "edgetk/error.hpp"

struct Array {
  std::vector<std::size_t> shape;
  std::vector<float> values;

  std::size_t rows() const { return shape.empty() ? 1 : shape[0]; }
  std::size_t columns() const { return values.size() / rows(); }
  const float* row(std::size_t i) const { return values.data() + i * columns(); }
};

inline Array read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto fail = [&](const std::string& got) -> edgetk::Error {
    return edgetk::Error(path + ": must be a C-ordered float32 array of numpy, got " + got + "; write it again");
  };
  if (bytes.size() < 10 || bytes.compare(0, 6, "\x93NUMPY") != 0 || bytes[6] != 1)
    throw fail(bytes.empty() ? "no such file" : "another file");
  const std::size_t head = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]),
                    start = 10 + head;
  const std::string text = bytes.substr(10, head);
  const auto open = text.find('('), close = text.find(')');
  if (text.find("'<f4'") == std::string::npos || text.find("'fortran_order': False") == std::string::npos ||
      close == std::string::npos)
    throw fail(text);
  Array array;
  std::size_t count = 1;
  for (std::size_t at = open + 1; at < close;) {
    char* end = nullptr;
    const auto size = std::strtoul(text.c_str() + at, &end, 10);
    if (end == text.c_str() + at) break;
    array.shape.push_back(size);
    count *= size;
    at = static_cast<std::size_t>(end - text.c_str()) + 1;
  }
  if (bytes.size() != start + 4 * count || count == 0) throw fail(std::to_string(bytes.size()) + " bytes");
  array.values.resize(count);
  std::memcpy(array.values.data(), bytes.data() + start, 4 * count);
  return array;
}
