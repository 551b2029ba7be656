// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// metrics.jsonl: one JSON object per line and record, flushed line by line.
//
//   MetricsLog log(run + "/metrics.jsonl");
//   log.truncate_after(resumed_step);                          // only when resuming
//   log.append({{"step", step}, {"loss", loss}, {"tokens_per_s", rate}});
//
// NaN and infinities, which JSON lacks, are written as null.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/train/append_file.h"
#include "trireme/train/fields.h"

namespace trireme {

// Not thread-safe; one log per file at a time.
class MetricsLog {
 public:
  // Continues the file where there is one, after its last whole line: what a killed process wrote
  // of another is dropped. Throws ConfigError with the system's reason.
  explicit MetricsLog(const std::string& path);

  // Throws ConfigError with the system's reason; the file then ends with the line before.
  void append(const Fields& fields);
  // Drops the lines whose "step" is above step, because the run repeats them, and with a warning
  // lines that are no JSON objects. Lines without a step stay. The file is replaced atomically.
  // Returns how many lines went. Throws CheckpointError with the system's reason; the file is then
  // as it was.
  std::int64_t truncate_after(std::int64_t step);

 private:
  AppendFile file_;
};

}  // namespace trireme
