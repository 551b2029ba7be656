// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Messages between two ranks: a header that says what comes, with the data when that is small, and
// otherwise the data after it, once the receiver has compared.
#pragma once

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/message/message_state.h"

namespace trireme {

// As Engine::send(), receive() and exchange().
void send_message(MessageState& state, const MessageKey& key, const ConstBuffer& data,
                  const Deadline& deadline);
void receive_message(MessageState& state, const MessageKey& key, const Buffer& data,
                     const Deadline& deadline);
void exchange_messages(MessageState& state, const MessageKey& out_key, const ConstBuffer& out,
                       const MessageKey& in_key, const Buffer& in, const Deadline& deadline);

}  // namespace trireme
