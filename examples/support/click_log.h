// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Click logs as Criteo publishes them, unpacked: a sample is a line of a label (0 or 1), thirteen
// whole numbers and twenty-six categories of eight hexadecimal digits, with tabs between; a number
// or a category may be empty. Files of any size: what is in memory is one batch.
//
//   ClickLog log("day_0", {.batch = 8192, .worker = group.rank(), .num_workers = group.size()});
//   while (const auto batch = log.next()) train(*batch);
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "examples/support/click_batch.h"

namespace trireme::examples {

struct ClickLogOptions {
  std::int64_t batch = 4096;  // samples of a step, over all workers
  std::int64_t worker = 0;    // in [0, num_workers)
  std::int64_t num_workers = 1;
};

class ClickLog {
 public:
  // Opens the file. Throws ConfigError: options that cannot be. DataError: no such file.
  ClickLog(std::string path, const ClickLogOptions& options);

  // This worker's samples of the next step, or nothing once the file is at its end. Step s has the
  // samples (lines) [s batch, (s + 1) batch), of which sample n is that of worker n % num_workers.
  // Every worker thus has the same number of steps, the last of which may leave it no sample.
  // Throws DataError, with the line, for a sample of this worker that is none; the line after it
  // is not read.
  std::optional<ClickBatch> next();
  // Begins again at the first sample.
  void rewind();

 private:
  // Constant after construction.
  std::string path_;
  ClickLogOptions options_;

  std::vector<char> buffer_;  // the stream's
  std::ifstream file_;
  std::int64_t num_read_ = 0;  // samples, those of all workers
};

namespace detail {

// Where one sample goes.
struct ClickSample {
  float* label;
  float* numbers;            // kClickNumbers of them
  std::int64_t* categories;  // kClickCategories of them
};

// Throws DataError, whose message begins with where.
void parse_click(std::string_view line, const std::string& where, const ClickSample& to);

}  // namespace detail
}  // namespace trireme::examples
