// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A file that grows by whole records and is flushed to the system with each, so that a killed
// process loses nothing that it wrote. (Not fsynced: after a power loss the last seconds may be
// missing.) Under metrics.jsonl and the event file.
//
//   AppendFile file("metrics.jsonl", AppendFile::Existing::kContinue);
//   file.append(line);
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// Not thread-safe.
class AppendFile {
 public:
  enum class Existing { kContinue, kRefuse };

  // Throws ConfigError with the system's reason.
  AppendFile(std::string path, Existing existing);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Writes the whole record, or cuts the file back to what it was and throws ConfigError with the
  // system's reason.
  void append(std::string_view record);
  // Cuts the file after its last line break, wherever a killed process stopped.
  void drop_torn_line();
  // Closes the file and opens what now has its name.
  void reopen();

  const std::string& path() const { return path_; }

 private:
  void open(Existing existing);
  void cut(std::int64_t size_bytes);

  std::string path_;
  int fd_ = -1;
  std::int64_t size_bytes_ = 0;
};

}  // namespace trireme
