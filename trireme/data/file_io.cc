// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "trireme/base/error.h"

namespace trireme::detail {

std::string system_reason(int error_number) {
  return std::generic_category().message(error_number);
}

std::string read_data_file(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0) {
    throw_error<DataError>("cannot read {}: {}", path, system_reason(errno));
  }
  std::string content(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t got = ::read(file.get(), content.data() + done, content.size() - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw_error<DataError>("cannot read {}: {}", path, system_reason(errno));
    }
    if (got == 0) {
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  content.resize(done);
  return content;
}

void write_bytes(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      throw_error<DataError>("cannot write {}: {}", path, system_reason(errno));
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_data_file(int fd, const std::string& path) {
  if (::fsync(fd) != 0) {
    throw_error<DataError>("cannot flush {} to disk: {}", path, system_reason(errno));
  }
}

void sync_data_folder(const std::string& path) {
  const FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) {
    throw_error<DataError>("cannot open folder {}: {}", path, system_reason(errno));
  }
  // Some file systems cannot sync folders (EINVAL); their renames last by themselves.
  if (::fsync(folder.get()) != 0 && errno != EINVAL) {
    throw_error<DataError>("cannot flush folder {} to disk: {}", path, system_reason(errno));
  }
}

void write_data_file(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  try {
    const FileDescriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!file) {
      throw_error<DataError>("cannot create {}: {}", temporary, system_reason(errno));
    }
    write_bytes(file.get(), content, temporary);
    sync_data_file(file.get(), temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      throw_error<DataError>("cannot rename {} to {}: {}", temporary, path, system_reason(errno));
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  sync_data_folder(folder.empty() ? "." : folder);
}

}  // namespace trireme::detail
