// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A folder of one test's own, removed with everything in it at the end of the scope.
//
//   const TemporaryFolder folder;
//   write_text(folder / "train.yaml", "seed: 3\n");
#pragma once

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace trireme::testing {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "trireme_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw std::system_error(errno, std::generic_category(), "mkdtemp " + name);
    }
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  // Folders that a test made read-only are opened again first.
  ~TemporaryFolder() {
    namespace fs = std::filesystem;
    std::error_code ignored;
    fs::permissions(path_, fs::perms::owner_all, fs::perm_options::add, ignored);
    for (fs::recursive_directory_iterator entry(path_, ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
      std::error_code stays;
      if (entry->is_directory(stays) && !entry->is_symlink(stays)) {
        fs::permissions(entry->path(), fs::perms::owner_all, fs::perm_options::add, stays);
      }
    }
    fs::remove_all(path_, ignored);
  }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace trireme::testing
