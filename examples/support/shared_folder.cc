// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/shared_folder.h"

#include <stdlib.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme::examples {

SharedFolder::SharedFolder(Group& group) : is_owner_(group.rank() == 0) {
  std::array<char, 4096> path{};  // PATH_MAX
  if (is_owner_) {
    const auto name = std::filesystem::temp_directory_path() / "trireme_example_XXXXXX";
    if (name.string().size() >= path.size()) {
      throw_error<DataError>("{}: longer than {} bytes", name.string(), path.size() - 1);
    }
    std::strcpy(path.data(), name.c_str());
    if (::mkdtemp(path.data()) == nullptr) {
      throw_error<DataError>("cannot make the folder {}: {}", name.string(), std::strerror(errno));
    }
  }
  group.broadcast(buffer_of(std::span(reinterpret_cast<std::uint8_t*>(path.data()), path.size())),
                  0);
  path_ = path.data();
}

SharedFolder::~SharedFolder() {
  std::error_code stays;
  if (is_owner_) std::filesystem::remove_all(path_, stays);
}

}  // namespace trireme::examples
