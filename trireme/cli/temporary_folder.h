// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A folder that is gone when the command is.
#pragma once

#include <string>

namespace trireme::cli {

class TemporaryFolder {
 public:
  // Under $TMPDIR or /tmp; name begins its name. Throws ConfigError with the system's reason.
  explicit TemporaryFolder(const std::string& name);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace trireme::cli
