/*
 * source_registry.h
 *		Check the source tables once, when the library is loaded.
 */
#ifndef INGEST_SOURCE_REGISTRY_H
#define INGEST_SOURCE_REGISTRY_H

extern void ingest_source_registry_init(void);

#endif							/* INGEST_SOURCE_REGISTRY_H */
