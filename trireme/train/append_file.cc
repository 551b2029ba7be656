// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "trireme/base/error.h"

namespace trireme {
namespace {

[[noreturn]] void throw_system_error(std::string_view action, const std::string& path, int error) {
  throw_error<ConfigError>("cannot {} '{}': {}", action, path,
                           std::generic_category().message(error));
}

}  // namespace

AppendFile::AppendFile(std::string path, Existing existing) : path_(std::move(path)) {
  open(existing);
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

void AppendFile::open(Existing existing) {
  const int flags = existing == Existing::kRefuse ? O_EXCL : 0;
  const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666);
  if (fd < 0) {
    throw_system_error("open", path_, errno);
  }
  struct stat status = {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    throw_error<ConfigError>("cannot write '{}': it is not a regular file", path_);
  }
  fd_ = fd;
  size_bytes_ = status.st_size;
}

void AppendFile::append(std::string_view record) {
  const std::int64_t before = size_bytes_;
  while (!record.empty()) {
    const ssize_t written = ::write(fd_, record.data(), record.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      const int error = errno;
      cut(before);
      throw_system_error("write", path_, error);
    }
    size_bytes_ += written;
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AppendFile::cut(std::int64_t size_bytes) {
  if (size_bytes == size_bytes_) {
    return;
  }
  if (::ftruncate(fd_, size_bytes) != 0) {
    throw_system_error("cut a torn record off", path_, errno);
  }
  size_bytes_ = size_bytes;
}

void AppendFile::drop_torn_line() {
  std::array<char, 4096> block;
  std::int64_t end = size_bytes_;
  while (end > 0) {
    const std::int64_t begin = std::max<std::int64_t>(0, end - std::int64_t{block.size()});
    const ssize_t got = ::pread(fd_, block.data(), static_cast<std::size_t>(end - begin), begin);
    if (got != end - begin) {
      throw_system_error("read", path_, got < 0 ? errno : EIO);
    }
    const std::size_t found =
        std::string_view(block.data(), static_cast<std::size_t>(got)).rfind('\n');
    if (found != std::string_view::npos) {
      end = begin + static_cast<std::int64_t>(found) + 1;
      break;
    }
    end = begin;
  }
  cut(end);
}

void AppendFile::reopen() {
  ::close(std::exchange(fd_, -1));
  open(Existing::kContinue);
}

}  // namespace trireme
