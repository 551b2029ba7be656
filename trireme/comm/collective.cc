// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/collective.h"

#include <fmt/core.h>

namespace trireme {
namespace {

std::string_view reduce_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMean:
      return "mean";
    case ReduceOp::kMin:
      return "min";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kProduct:
      return "product";
  }
  return "?";
}

}  // namespace

std::string kind_name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kBarrier:
      return "barrier";
    case CollectiveKind::kAllReduce:
      return "all_reduce";
    case CollectiveKind::kAllGather:
      return "all_gather";
    case CollectiveKind::kBroadcast:
      return "broadcast";
  }
  return "?";
}

std::string describe(const Signature& signature) {
  const std::string name = kind_name(signature.kind);
  const std::string_view dtype = dtype_name(signature.dtype);
  switch (signature.kind) {
    case CollectiveKind::kBarrier:
      return name + "()";
    case CollectiveKind::kAllReduce:
      return fmt::format("{}({} of {} x {})", name, reduce_name(signature.op), signature.count,
                         dtype);
    case CollectiveKind::kAllGather:
      return fmt::format("{}({} x {})", name, signature.count, dtype);
    case CollectiveKind::kBroadcast:
      return fmt::format("{}({} x {} from rank {})", name, signature.count, dtype, signature.root);
  }
  return name;
}

}  // namespace trireme
