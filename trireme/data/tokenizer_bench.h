// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How fast tokenizers are trained, encode and decode here: `trireme bench tokenizer`.
//
//   const TokenizerBenchReport report = bench_tokenizer({.text = "/usr/include"});
//   report.encode.median   // MB/s of one thread
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/data/tokenizer.h"

namespace trireme {

struct TokenizerBenchOptions {
  std::string text;            // folder, or one file
  std::string tokenizer = {};  // path of a tokenizer.json; empty: train one on the same text
  TokenizerTrainOptions train = {};
  std::int64_t text_bytes = std::int64_t{64} << 20;  // at most; whole files, spread over the folder
  std::int64_t sample_bytes = std::int64_t{32} << 20;  // to train on
  int repetitions = 7;                                 // at least 5
};

// MB (10^6 bytes) of text for each second of processor time, over the repetitions.
struct ThroughputSpread {
  double median = 0;
  double p10 = 0;
  double p90 = 0;
};

struct TokenizerBenchReport {
  std::int64_t files = 0;
  std::int64_t bytes = 0;
  std::int64_t tokens = 0;
  std::int64_t vocab_size = 0;
  std::int64_t train_bytes = 0;  // 0: the tokenizer was given
  double train_seconds = 0;      // of processor time
  ThroughputSpread encode;       // one thread, an Encoder without memory at the start
  ThroughputSpread encode_warm;  // the same Encoder once more
  ThroughputSpread decode;
};

// Blocks for some seconds. All on the calling thread. Checks first that every file decodes to
// itself. Throws DataError when there is no text, or when the check fails; ConfigError when
// repetitions is below 5.
TokenizerBenchReport bench_tokenizer(const TokenizerBenchOptions& options);

}  // namespace trireme
