// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// From a folder of text to token shards.
//
//   PrepareOptions options{.text = "/usr/include", .output = "runs/a/data"};
//   const PrepareReport report = prepare_tokens(options, progress);
//
// Walks the folder in path order (symbolic links are not followed), skips what is not text and
// counts each skip with its reason, trains a tokenizer on a sample spread over all files unless one
// is given, encodes in parallel, ends each file with end_of_text, and writes train and validation
// shards. Files go to validation in the order of a number made from the seed and their path, until
// the fraction is reached. The result does not depend on the number of threads. Some tens of
// megabytes of text are in memory at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "trireme/data/tokenizer.h"

namespace trireme {

struct PrepareOptions {
  std::string text;            // folder, or one file
  std::string output;          // folder for shards, tokenizer.json, manifest.json
  std::string tokenizer = {};  // path of an existing tokenizer.json; empty: train one
  TokenizerTrainOptions train = {};
  std::int64_t tokenizer_sample_bytes = std::int64_t{32} << 20;
  // Of the bytes, by whole files; at least one file when there are two or more, a tail of the text
  // when there is one. 0: everything is for training.
  double validation_fraction = 0.01;
  std::int64_t max_file_bytes = std::int64_t{64} << 20;
  std::uint64_t seed = 1;
  int threads = 1;
};

struct PrepareReport {
  std::int64_t files = 0;
  std::int64_t bytes = 0;
  std::int64_t train_tokens = 0;
  std::int64_t validation_tokens = 0;
  std::int64_t vocab_size = 0;
  std::string tokenizer_hash;
  // Reason ("binary", "empty", "duplicate", "too large", "unreadable", "symbolic link", "not a
  // regular file") to number of files.
  std::map<std::string, std::int64_t> skipped;
  bool reused = false;  // output already held exactly this
};

struct PrepareProgress {
  const char* phase = "";  // "reading", "training tokenizer", "encoding"
  std::int64_t done = 0;   // bytes, or merges
  std::int64_t total = 0;
};

// Blocks. Calls progress now and then, from one thread at a time. Output that was made from the
// same options and the same files (paths, sizes, times) is reused; an output folder that holds
// anything else is never touched. Throws ConfigError on options out of range; DataError: text
// missing, unreadable, empty, or without a single text file (with the counts of what was skipped);
// a file that changed meanwhile; an output that cannot be written, holds something else (with what
// differs) or is being made by another process. output does not exist then, if it did not before.
PrepareReport prepare_tokens(const PrepareOptions& options,
                             const std::function<void(const PrepareProgress&)>& progress);

}  // namespace trireme
