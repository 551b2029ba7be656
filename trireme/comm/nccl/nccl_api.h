// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The functions of NCCL that Trireme calls, in our own words: NCCL's header is not needed to build.
// Values and layouts are those of NCCL 2.14, which later releases take.
#pragma once

#include <cstddef>
#include <string>

#include "trireme/comm/nccl/cuda_api.h"

namespace trireme {

using NcclResult = int;
using NcclComm = struct NcclCommOpaque*;

constexpr NcclResult kNcclSuccess = 0;
constexpr NcclResult kNcclInProgress = 7;
constexpr int kNcclInt8 = 0;
// The first release whose calls need not block.
constexpr int kNcclOldest = 21400;
constexpr unsigned kNcclConfigMagic = 0xcafebeef;

struct NcclUniqueId {
  char bytes[128];
};
// ncclConfig_t of 2.14. Later releases have more fields and fill in those that a smaller size and
// an older version leave out.
struct NcclConfig {
  std::size_t size = sizeof(NcclConfig);
  unsigned magic = kNcclConfigMagic;
  unsigned version = kNcclOldest;
  int blocking = 0;
};

// Constant after construction. Any thread, but one communicator by one thread at a time.
struct NcclApi {
  // Throws ConfigError when the library, libnccl.so.2 when path is empty, cannot be had, or is
  // older than kNcclOldest.
  explicit NcclApi(const std::string& path);

  int version = 0;  // 22809 is 2.28.9

  NcclResult (*get_version)(int* version);
  NcclResult (*get_unique_id)(NcclUniqueId* id);
  NcclResult (*init)(NcclComm* comm, int size, NcclUniqueId id, int rank, NcclConfig* config);
  NcclResult (*finalize)(NcclComm comm);
  NcclResult (*destroy)(NcclComm comm);
  NcclResult (*abort)(NcclComm comm);
  NcclResult (*async_error)(NcclComm comm, NcclResult* error);
  const char* (*error_string)(NcclResult error);
  const char* (*last_error)(NcclComm comm);
  NcclResult (*group_start)();
  NcclResult (*group_end)();
  NcclResult (*send)(const void* data, std::size_t count, int dtype, int peer, NcclComm comm,
                     CuStream stream);
  NcclResult (*receive)(void* data, std::size_t count, int dtype, int peer, NcclComm comm,
                        CuStream stream);
};

}  // namespace trireme
