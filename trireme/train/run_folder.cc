// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "trireme/base/error.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// The topmost ancestor of path (or path itself) that does not exist yet.
std::string topmost_missing(const fs::path& path) {
  fs::path missing;
  for (fs::path p = fs::absolute(path).lexically_normal(); !fs::exists(p); p = p.parent_path()) {
    missing = p;
  }
  return missing.string();
}

void refuse_existing(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) {
    throw_error<ConfigError>("out: '{}' exists and is not a folder: choose another name", path);
  }
  if (!fs::is_empty(path, error) && !error) {
    throw_error<ConfigError>(
        "out: the folder '{}' exists already: continue it with --resume, or choose another name, "
        "for example out={}-2",
        path, path);
  }
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) {
    throw_error<ConfigError>("out: cannot make the folder '{}': {}", path, error.message());
  }
}

}  // namespace

RunFolderLock::RunFolderLock(const RunFolder& folder, bool resume) : path_(folder.path()) {
  if (resume) {
    if (!fs::exists(folder.config())) {
      throw_error<ConfigError>(
          "out: '{}' is no run to resume: it has no config.yaml; start a new one without --resume",
          path_);
    }
  } else {
    refuse_existing(path_);
    first_made_ = topmost_missing(path_);
    make_folder(path_);
  }
  const std::string lock = path_ + "/.lock";
  fd_ = ::open(lock.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (fd_ < 0) {
    throw_error<ConfigError>("out: cannot write to '{}': {}", path_, std::strerror(errno));
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd_);
    throw_error<ConfigError>(
        "out: another process is training in '{}': wait for it or choose another name", path_);
  }
}

RunFolderLock::~RunFolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

void RunFolderLock::abandon() {
  std::error_code ignored;
  fs::remove(path_ + "/.lock", ignored);
  if (!first_made_.empty()) fs::remove_all(first_made_, ignored);
}

}  // namespace trireme
