// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Files of the data layer: read whole, written whole or not at all. Errors are DataError with the
// path and the system's reason. Internal to trireme/data.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace trireme::detail {

// Owns a file descriptor.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

// errno in words.
std::string system_reason(int error_number);

std::string read_data_file(const std::string& path);

// Writes all of bytes at the file's position. path is for the message.
void write_bytes(int fd, std::string_view bytes, const std::string& path);

// Makes what was written to fd last through a crash.
void sync_data_file(int fd, const std::string& path);
// The same for the names in a folder.
void sync_data_folder(const std::string& path);

// Under a temporary name beside path, fsynced, renamed, folder fsynced.
void write_data_file(const std::string& path, std::string_view content);

}  // namespace trireme::detail
