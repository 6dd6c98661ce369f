/// Sound files: mono WAV of 16-bit or float samples, checked as edgetk's Python reader checks them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "edgetk/error.hpp"

namespace edgetk {

/// A 16-bit sample, little endian, in [-1, 1).
inline float from_pcm16(const unsigned char* bytes) {
  return static_cast<float>(static_cast<std::int16_t>(bytes[0] | bytes[1] << 8)) / 32768.0f;
}

/// The samples of a file, in [-1, 1]. Throws Error for anything but a complete mono file at `sample_rate`.
inline std::vector<float> read_wav(const std::string& path, int sample_rate) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": must be a sound file, got no such file; check the path");
  if (file.peek(); file.bad()) throw Error(path + ": must be a sound file, got one that cannot be read; check the path");
  const std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto number = [&](std::size_t at, int size) {
    std::uint32_t value = 0;
    for (int i = 0; i < size; ++i) value |= std::uint32_t{bytes[at + static_cast<std::size_t>(i)]} << (8 * i);
    return value;
  };
  if (bytes.size() < 12 || std::memcmp(bytes.data(), "RIFF", 4) != 0 || std::memcmp(bytes.data() + 8, "WAVE", 4) != 0) {
    throw Error(path + ": must be a WAV file, got another format; convert it");
  }
  std::uint32_t format = 0, channels = 0, rate = 0, bits = 0;
  for (std::size_t at = 12; at + 8 <= bytes.size();) {
    const std::size_t length = number(at + 4, 4), start = at + 8;
    if (start + length > bytes.size()) throw Error(path + ": must be complete, got a truncated file; copy it again");
    if (std::memcmp(bytes.data() + at, "fmt ", 4) == 0 && length >= 16) {
      format = number(start, 2), channels = number(start + 2, 2), rate = number(start + 4, 4), bits = number(start + 14, 2);
      if (format == 0xFFFE && length >= 26) format = number(start + 24, 2);  // the extensible form tells it further on
    } else if (std::memcmp(bytes.data() + at, "data", 4) == 0) {
      const bool pcm = format == 1 && bits == 16, floats = format == 3 && bits == 32;
      if (!pcm && !floats) {
        throw Error(path + ": must hold 16-bit or float samples, got format " + std::to_string(format) + " with " +
                    std::to_string(bits) + " bits; convert it");
      }
      if (channels != 1) throw Error(path + ": must be mono, got " + std::to_string(channels) + " channels; mix it down first");
      if (rate != static_cast<std::uint32_t>(sample_rate)) {
        throw Error(path + ": must be sampled at " + std::to_string(sample_rate) + " Hz, got " + std::to_string(rate) +
                    " Hz; resample it first");
      }
      std::vector<float> samples(length / (bits / 8));
      for (std::size_t i = 0; i < samples.size(); ++i) {
        if (pcm) {
          samples[i] = from_pcm16(bytes.data() + start + 2 * i);
        } else {
          std::memcpy(&samples[i], bytes.data() + start + 4 * i, 4);
          if (!std::isfinite(samples[i]))
            throw Error(path + ": must hold finite samples, got NaN or infinity; export it again");
        }
      }
      if (samples.empty()) throw Error(path + ": must hold sound, got 0 samples; record it again");
      return samples;
    }
    at = start + length + length % 2;
  }
  throw Error(path + ": must hold sound, got no data chunk; record it again");
}

}  // namespace edgetk
