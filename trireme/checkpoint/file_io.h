// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// System calls on files, each result checked and each failure a CheckpointError that names the file
// and the system's reason. Shared by the files of this layer; not for users.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "trireme/base/file_descriptor.h"

namespace trireme::detail {

// Throws "cannot <action> '<path>': <the system's reason for error>", with advice where there is
// any.
[[noreturn]] void throw_system_error(std::string_view action, const std::string& path, int error);

// A streaming xxh3-64.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(Digest&&) noexcept;
  void update(std::span<const std::byte> bytes);
  // 16 hex digits, the most significant first.
  std::string hex() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// xxh3-64 of bytes as 16 hex digits.
std::string digest_of(std::span<const std::byte> bytes);

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A new file that is removed again unless finish() or finish_as() was reached.
class OutputFile {
 public:
  enum class Existing { kRefuse, kOverwrite };

  OutputFile(std::string path, Existing existing);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  // fsyncs and closes; returns the digest of all bytes written.
  std::string finish();
  // finish(), then takes the place of path, which lasts.
  void finish_as(const std::string& path);
  std::uint64_t size() const { return size_; }

 private:
  std::string path_;
  FileDescriptor file_;
  Digest digest_;
  std::uint64_t size_ = 0;
  bool finished_ = false;
};

// A regular file opened for reading, and its size. Pipes and devices are refused without blocking.
struct InputFile {
  FileDescriptor file;
  std::uint64_t size = 0;
};
InputFile open_input(const std::string& path);

// The whole file into as many bytes.
void read_file(const InputFile& input, const std::string& path, std::span<std::byte> out);
// The whole file; refused when it is larger than limit_bytes.
std::string read_file(const std::string& path, std::uint64_t limit_bytes);

// The digest of a whole file, read in pieces: an unreadable block is an error here, where a mapping
// would raise SIGBUS.
std::string digest_of_file(const InputFile& input, const std::string& path);

// Renames, replacing nothing but an empty folder.
void rename_path(const std::string& from, const std::string& to);

// Removes a file or a whole folder; a path that is not there is fine. Links are not followed.
void remove_path(const std::string& path);

// Makes a folder and those above it, each of which lasts.
void make_folders(const std::string& path);

// The folder that holds path; "." for a bare name.
std::string parent_folder(const std::string& path);

// Whether anything has that name.
bool path_exists(const std::string& path);

// Text of a file for a message: cut to 80 bytes, control and non-ASCII bytes escaped.
std::string printable(std::string_view text);

}  // namespace trireme::detail
