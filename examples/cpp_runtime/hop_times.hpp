// How long the hops of a stream took: percentiles from a histogram of fixed size, so that a stream may last for ever.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

class HopTimes {
 public:
  void add(std::chrono::nanoseconds took) {
    const double ns = static_cast<double>(took.count());
    const auto place = static_cast<std::size_t>(ns > 1 ? std::log2(ns) * per_octave : 0);
    ++counts_[std::min(place, counts_.size() - 1)];
    ++hops_;
    total_s_ += ns * 1e-9;
    longest_s_ = std::max(longest_s_, ns * 1e-9);
  }

  /// One line of JSON. real_time_factor: computing time for a second of sound; duty_cycle: the share of each hop's period that
  /// it computes in. The two differ where hops are not as long as the model's period.
  void print(std::FILE* to, const std::string& runtime, double audio_s, double period_s, std::size_t detections) const {
    const double mean_s = hops_ ? total_s_ / static_cast<double>(hops_) : 0;
    std::fprintf(
        to,
        "{\"runtime\":\"%s\",\"audio_s\":%.3f,\"detections\":%zu,\"real_time_factor\":%.5f,\"hop_us\":{\"n\":%llu,"
        "\"mean\":%.1f,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},\"duty_cycle\":%.5f}\n",
        runtime.c_str(), audio_s, detections, audio_s > 0 ? total_s_ / audio_s : 0.0,
        static_cast<unsigned long long>(hops_), mean_s * 1e6, quantile(0.50) * 1e6, quantile(0.99) * 1e6, longest_s_ * 1e6,
        period_s > 0 ? mean_s / period_s : 0.0);
  }

 private:
  static constexpr int per_octave = 32;                  // steps of 2.2 %
  std::array<std::uint64_t, 40 * per_octave> counts_{};  // up to 18 minutes
  std::uint64_t hops_ = 0;
  double total_s_ = 0, longest_s_ = 0;

  double quantile(double share) const {
    const double wanted = share * static_cast<double>(hops_);
    double seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += static_cast<double>(counts_[i]);
      if (seen > 0 && seen >= wanted) return std::exp2((static_cast<double>(i) + 0.5) / per_octave) * 1e-9;
    }
    return 0;
  }
};
