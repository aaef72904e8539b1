#pragma once

// All that a program of views needs.

#include "projections/app.h"
#include "projections/cache_table.h"
#include "projections/change.h"
#include "projections/event.h"
#include "projections/memory_view.h"
#include "projections/relational/events.h"
#include "projections/relational/relation.h"
#include "projections/search_index.h"
#include "projections/values.h"
#include "projections/wait.h"
