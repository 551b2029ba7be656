// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/nccl_api.h"

#include "trireme/base/error.h"
#include "trireme/comm/nccl/shared_library.h"

namespace trireme {

NcclApi::NcclApi(const std::string& path) {
  const std::string names[] = {path.empty() ? "libnccl.so.2" : path};
  const SharedLibrary library("NCCL", names);
  library.find("ncclGetVersion", get_version);
  if (get_version(&version) != kNcclSuccess || version < kNcclOldest) {
    throw_error<ConfigError>("NCCL's version is {} and must be at least {} (2.14)", version,
                             kNcclOldest);
  }
  library.find("ncclGetUniqueId", get_unique_id);
  library.find("ncclCommInitRankConfig", init);
  library.find("ncclCommFinalize", finalize);
  library.find("ncclCommDestroy", destroy);
  library.find("ncclCommAbort", abort);
  library.find("ncclCommGetAsyncError", async_error);
  library.find("ncclGetErrorString", error_string);
  library.find("ncclGetLastError", last_error);
  library.find("ncclGroupStart", group_start);
  library.find("ncclGroupEnd", group_end);
  library.find("ncclSend", send);
  library.find("ncclRecv", receive);
}

}  // namespace trireme
