// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "trireme/checkpoint/file_io.h"

namespace trireme {

void write_file_atomically(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  detail::OutputFile output(temporary, detail::OutputFile::Existing::kOverwrite);
  output.write(detail::as_bytes(content));
  output.finish_as(path);
}

void sync_folder(const std::string& path) {
  const FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) {
    detail::throw_system_error("open folder", path, errno);
  }
  // Some network file systems do not know fsync on folders (EINVAL); there, rename itself lasts.
  if (::fsync(folder.get()) != 0 && errno != EINVAL) {
    detail::throw_system_error("flush folder to disk", path, errno);
  }
}

}  // namespace trireme
