#pragma once

#include "projections/projections.h"

/// What is in each cart: one row per cart, by a function of its events.
millrace::projections::CacheTable carts();

/// What is in all carts: one row per article that was ever put into one, declared as a relation.
millrace::projections::RelationalView articles();
