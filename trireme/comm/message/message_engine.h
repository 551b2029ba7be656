// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// All operations by messages between pairs of ranks, whatever carries them. docs/collectives.md has
// the algorithms.
#pragma once

#include <memory>

#include "trireme/comm/engine.h"
#include "trireme/comm/message/memory.h"
#include "trireme/comm/message/message_port.h"

namespace trireme {

// meeting carries what the host reads (signatures, counts, small data), payload the rest; they may
// be one and the same port. scope must outlive the engine.
std::unique_ptr<Engine> make_message_engine(const GroupScope& scope,
                                            std::shared_ptr<MessagePort> meeting,
                                            std::shared_ptr<MessagePort> payload,
                                            std::unique_ptr<Memory> memory);

}  // namespace trireme
