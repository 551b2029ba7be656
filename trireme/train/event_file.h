// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Scalars for TensorBoard, in the event file that it and other viewers read.
//
//   EventFile events(run, resumed_step);
//   events.append(step, {{"loss", loss}, {"learning_rate", rate}});
//
// Format: records of TensorFlow's TFRecord, each a protocol buffer of the message Event (sources:
// tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto). A record is: length as
// u64, masked CRC-32C of the length, data, masked CRC-32C of the data; all little endian.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/train/append_file.h"
#include "trireme/train/fields.h"

namespace trireme {

// Not thread-safe.
class EventFile {
 public:
  // Makes <folder>/events.out.tfevents.<seconds>.<host>; a run that resumes gets a further file
  // beside the first, which viewers join. They then hide what older files hold of steps above
  // last_step. Throws ConfigError with the system's reason.
  explicit EventFile(const std::string& folder, std::int64_t last_step = 0);

  // Writes and flushes every number but "step", as f32, under its name. Strings and booleans are
  // left out. Throws ConfigError with the system's reason.
  void append(std::int64_t step, const Fields& fields);

  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace trireme
