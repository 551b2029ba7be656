// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/shared_library.h"

#include <dlfcn.h>

#include <utility>

#include "trireme/base/error.h"

namespace trireme {

SharedLibrary::SharedLibrary(std::string purpose, std::span<const std::string> names)
    : purpose_(std::move(purpose)) {
  std::string tried;
  for (const std::string& name : names) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      name_ = name;
      return;
    }
    // Only one thread's errors.
    const char* why = dlerror();
    tried += (tried.empty() ? "" : "; ") + std::string(why != nullptr ? why : name);
  }
  throw_error<ConfigError>(
      "{} cannot be loaded: {}; install it, put its folder on LD_LIBRARY_PATH, or name it in "
      "WorldOptions::cuda",
      purpose_, tried);
}

void* SharedLibrary::address_of(const char* symbol) const {
  void* address = dlsym(handle_, symbol);
  if (address == nullptr) {
    throw_error<ConfigError>("{} ({}) has no {}: it is too old, or another library", purpose_,
                             name_, symbol);
  }
  return address;
}

}  // namespace trireme
