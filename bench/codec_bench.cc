// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How fast one core encodes and decodes, per codec, and what the encoding loses.
//
//   codec_bench [MiB of f32, default 64] [repetitions, default 21]
//
// GB/s are of f32 values: those read by an encoder, those written by a decoder. "feedback" is
// encoding with error feedback, which also reads and writes a residual. Medians, with the spread
// from the first to the ninth decile. Errors are relative in the 2-norm, of one encoding without
// feedback, for normal and for heavy-tailed values (normal cubed).

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "trireme/base/random.h"
#include "trireme/comm/codec/block_codecs.h"
#include "trireme/comm/codec/error_feedback.h"
#include "trireme/comm/codec/low_rank_codec.h"
#include "trireme/comm/codec/top_k_codec.h"

namespace {

using namespace trireme;

struct Rate {
  double median = 0, p10 = 0, p90 = 0;  // GB/s
};

Rate rate_of(std::size_t bytes, int repetitions, const std::function<void()>& body) {
  body();
  std::vector<double> rates;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    rates.push_back(static_cast<double>(bytes) / 1e9 / seconds.count());
  }
  std::sort(rates.begin(), rates.end());
  const auto at = [&](double share) {
    return rates[static_cast<std::size_t>(share * static_cast<double>(rates.size() - 1) + 0.5)];
  };
  return {at(0.5), at(0.1), at(0.9)};
}

std::vector<float> values_of(std::size_t count, bool heavy_tailed) {
  const RandomStream stream(1, "codec bench");
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double x = stream.normal(i);
    values[i] = static_cast<float>(heavy_tailed ? x * x * x : x);
  }
  return values;
}

double relative_error(Codec& codec, const std::vector<float>& values) {
  std::vector<std::byte> wire(codec.encoded_bytes(static_cast<std::int64_t>(values.size())));
  std::vector<float> lost(values.size());
  codec.encode(values, wire, lost);
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    error += double{lost[i]} * lost[i];
    norm += double{values[i]} * values[i];
  }
  return std::sqrt(error / norm);
}

std::string words(const Rate& rate) {
  return fmt::format("{:6.2f} ({:.2f} .. {:.2f})", rate.median, rate.p10, rate.p90);
}

void measure(Codec& codec, const std::vector<float>& normal, const std::vector<float>& heavy,
             int repetitions) {
  const auto count = static_cast<std::int64_t>(normal.size());
  const std::size_t bytes = normal.size() * sizeof(float);
  std::vector<std::byte> wire(codec.encoded_bytes(count));
  std::vector<float> decoded(normal.size());
  ErrorFeedback feedback(count);
  const Rate encode = rate_of(bytes, repetitions, [&] { codec.encode(normal, wire); });
  const Rate decode = rate_of(bytes, repetitions, [&] { codec.decode(wire, decoded); });
  const Rate with = rate_of(bytes, repetitions, [&] { feedback.encode(codec, normal, wire); });
  fmt::print("{:12} {:7.2f}  {:24} {:24} {:24} {:.5f} {:.5f}\n", codec.name(),
             compression_ratio(codec, count), words(encode), words(decode), words(with),
             relative_error(codec, normal), relative_error(codec, heavy));
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 64;
  const int repetitions = argc > 2 ? std::atoi(argv[2]) : 21;
  const std::size_t count = mib * 1024 * 1024 / sizeof(float);
  if (count == 0 || repetitions < 1) {
    fmt::print(stderr, "usage: codec_bench [MiB of f32] [repetitions]\n");
    return 2;
  }
  const std::vector<float> normal = values_of(count, false);
  const std::vector<float> heavy = values_of(count, true);
  fmt::print("{} MiB of f32, one core, GB/s: median (p10 .. p90) of {}\n", mib, repetitions);
  fmt::print("{:12} {:>7}  {:24} {:24} {:24} {:7} {}\n", "codec", "ratio", "encode", "decode",
             "feedback", "normal", "heavy-tailed");
  std::vector<std::unique_ptr<Codec>> codecs;
  codecs.push_back(std::make_unique<Bf16Codec>());
  codecs.push_back(std::make_unique<Int8Codec>());
  codecs.push_back(std::make_unique<TopKCodec>());
  codecs.push_back(std::make_unique<LowRankCodec>(static_cast<std::int64_t>(count)));
  for (const auto& codec : codecs) measure(*codec, normal, heavy, repetitions);
  return 0;
}
