/// Sound to log-mel frames as it arrives: Kaldi's filter banks with the constants that the model file names.
///
/// Equal to edgetk's Python front end in double precision within 1e-4. Samples that the next frame still needs are held in a
/// ring of one window; nothing is allocated after construction.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "edgetk/description.hpp"

namespace edgetk {

namespace detail {

/// Power spectrum of a real signal whose length is a power of two: one complex transform of half the length (radix 2).
class PowerSpectrum {
 public:
  explicit PowerSpectrum(std::size_t length) : half_(length / 2), order_(half_), roots_(length), z_(half_) {
    constexpr double pi = 3.14159265358979323846;
    std::size_t bits = 0;
    while ((std::size_t{1} << bits) < half_) ++bits;
    for (std::size_t i = 0; i < half_; ++i) {
      std::size_t reversed = 0;
      for (std::size_t b = 0; b < bits; ++b) reversed |= ((i >> b) & 1) << (bits - 1 - b);
      order_[i] = reversed;
    }
    for (std::size_t k = 0; k < length; ++k) {
      const double angle = -2 * pi * static_cast<double>(k) / static_cast<double>(length);
      roots_[k] = {std::cos(angle), std::sin(angle)};
    }
  }

  /// signal (length) -> |X_k|^2 for k = 0 … length / 2 (length / 2 + 1 numbers).
  void operator()(const double* signal, double* power) {
    for (std::size_t i = 0; i < half_; ++i) z_[order_[i]] = {signal[2 * i], signal[2 * i + 1]};
    for (std::size_t span = 1; span < half_; span *= 2) {
      const std::size_t stride = half_ / span;  // roots_ has twice as many entries as this transform needs
      for (std::size_t first = 0; first < half_; first += 2 * span) {
        for (std::size_t k = 0; k < span; ++k) {
          const Complex a = z_[first + k], b = z_[first + k + span], w = roots_[k * stride];
          const Complex turned{b.re * w.re - b.im * w.im, b.re * w.im + b.im * w.re};
          z_[first + k] = {a.re + turned.re, a.im + turned.im};
          z_[first + k + span] = {a.re - turned.re, a.im - turned.im};
        }
      }
    }
    // Even and odd samples went in as real and imaginary parts; their spectra come apart by symmetry.
    for (std::size_t k = 0; k <= half_; ++k) {
      const Complex a = z_[k % half_], b = z_[(half_ - k) % half_], w = roots_[k];
      const Complex even{0.5 * (a.re + b.re), 0.5 * (a.im - b.im)}, odd{0.5 * (a.im + b.im), 0.5 * (b.re - a.re)};
      const double re = even.re + odd.re * w.re - odd.im * w.im, im = even.im + odd.re * w.im + odd.im * w.re;
      power[k] = re * re + im * im;
    }
  }

 private:
  struct Complex {
    double re, im;
  };
  std::size_t half_;
  std::vector<std::size_t> order_;
  std::vector<Complex> roots_, z_;
};

}  // namespace detail

class LogMel {
 public:
  explicit LogMel(const LogMelConstants& constants)
      : c_(constants),
        spectrum_(static_cast<std::size_t>(c_.n_fft)),
        ring_(static_cast<std::size_t>(c_.window_samples)),
        window_(ring_.size()),
        signal_(static_cast<std::size_t>(c_.n_fft)),
        power_(signal_.size() / 2 + 1),
        frame_(static_cast<std::size_t>(c_.n_mels)) {
    constexpr double pi = 3.14159265358979323846;
    for (std::size_t i = 0; i < window_.size(); ++i) {
      window_[i] =
          static_cast<float>(0.5 - 0.5 * std::cos(2 * pi * static_cast<double>(i) / static_cast<double>(window_.size() - 1)));
    }
    make_bands();
  }

  const LogMelConstants& constants() const { return c_; }

  /// Hear `n` samples in [-1, 1] and call `use(frame)` for each frame they complete: n_mels normalised numbers, which are
  /// valid during the call.
  template <class Use>
  void push(const float* samples, std::size_t n, Use&& use) {
    for (std::size_t i = 0; i < n;) {
      const std::size_t taken = std::min(n - i, missing_);
      for (std::size_t k = 0; k < taken; ++k) {
        ring_[at_] = samples[i + k];
        at_ = at_ + 1 == ring_.size() ? 0 : at_ + 1;
      }
      i += taken;
      missing_ -= taken;
      if (missing_ == 0) {
        compute();
        missing_ = static_cast<std::size_t>(c_.hop_samples);
        use(static_cast<const float*>(frame_.data()));
      }
    }
  }

  /// Forget what was heard: the next sample starts a new stream.
  void reset() {
    at_ = 0;
    missing_ = ring_.size();
  }

 private:
  /// A triangle on the mel scale: weights of the bins first, first + 1, …
  struct Band {
    std::size_t first = 0;
    std::vector<float> weights;
  };

  LogMelConstants c_;
  detail::PowerSpectrum spectrum_;
  std::vector<float> ring_, window_;
  std::vector<double> signal_, power_;
  std::vector<float> frame_;
  std::vector<Band> bands_;
  std::size_t at_ = 0, missing_ = ring_.size();

  static double mel(double hz) { return 1127.0 * std::log1p(hz / 700.0); }

  void make_bands() {
    const double low = mel(c_.low_hz), step = (mel(c_.high_hz) - low) / (c_.n_mels + 1);
    const std::size_t bins = signal_.size() / 2;  // the Nyquist bin has no weight
    for (int m = 0; m < c_.n_mels; ++m) {
      const double left = low + step * m, right = low + step * (m + 2);
      Band band;
      for (std::size_t k = 0; k < bins; ++k) {
        const double at = mel(static_cast<double>(k) * c_.sample_rate / c_.n_fft);
        const double weight = std::min((at - left) / step, (right - at) / step);
        if (weight <= 0) continue;
        if (band.weights.empty()) band.first = k;
        band.weights.push_back(static_cast<float>(weight));
      }
      bands_.push_back(std::move(band));
    }
  }

  void compute() {
    const std::size_t n = ring_.size();
    double sum = 0;
    for (const float v : ring_) sum += v;
    const float mean = static_cast<float>(sum / static_cast<double>(n)), emphasis = static_cast<float>(c_.preemphasis);
    // The oldest sample stands where the next one will go; the first of a frame stands in for the one before it.
    float before = ring_[at_] - mean;
    for (std::size_t i = 0, from = at_; i < n; ++i, from = from + 1 == n ? 0 : from + 1) {
      const float here = ring_[from] - mean;
      signal_[i] = (here - emphasis * before) * window_[i];
      before = here;
    }
    spectrum_(signal_.data(), power_.data());
    for (std::size_t m = 0; m < bands_.size(); ++m) {
      const Band& band = bands_[m];
      double energy = 0;
      for (std::size_t k = 0; k < band.weights.size(); ++k) energy += power_[band.first + k] * band.weights[k];
      frame_[m] = static_cast<float>((std::log(std::max(energy, c_.log_floor)) - c_.mean) / c_.std_times_2);
    }
  }
};

}  // namespace edgetk
