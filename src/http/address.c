/*
 * address.c
 *		Networks that are not public, and lists of networks.
 *
 * From the special-purpose registries of IANA (RFC 6890 and its updates).  Of
 * IPv6 only 2000::/3 has been given to anybody.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "http/address.h"

/* An IPv6 address; IPv4 as ::ffff:a.b.c.d. */
typedef struct Network
{
	unsigned char bytes[16];
	int			bits;
} Network;

static const char *const special[] = {
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32",			/* what a virtual machine of Azure is served by */
	"2001::/23",				/* Teredo, ORCHID and the like */
	"2001:db8::/32", "2002::/16", "3fff::/20",
	NULL
};

static const unsigned char v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool
parse_network(const char *text, size_t len, Network *network)
{
	char		copy[64];
	char	   *slash;
	char	   *end;
	long		bits = -1;

	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if ((slash = strchr(copy, '/')) != NULL)
	{
		*slash++ = '\0';
		if (*slash < '0' || *slash > '9')
			return false;
		bits = strtol(slash, &end, 10);
		if (*end != '\0' || bits < 0)
			return false;
	}
	memset(network, 0, sizeof(*network));
	if (inet_pton(AF_INET, copy, network->bytes + 12) == 1)
	{
		network->bytes[10] = network->bytes[11] = 0xff;
		network->bits = bits < 0 ? 128 : (int) bits + 96;
		return bits <= 32;
	}
	network->bits = bits < 0 ? 128 : (int) bits;
	return bits <= 128 && inet_pton(AF_INET6, copy, network->bytes) == 1;
}

/* false: neither IPv4 nor IPv6. */
static bool
read_address(const struct sockaddr *address, Network *network)
{
	memset(network, 0, sizeof(*network));
	network->bits = 128;
	if (address->sa_family == AF_INET)
	{
		network->bytes[10] = network->bytes[11] = 0xff;
		memcpy(network->bytes + 12, &((const struct sockaddr_in *) address)->sin_addr, 4);
		return true;
	}
	if (address->sa_family == AF_INET6)
	{
		memcpy(network->bytes, &((const struct sockaddr_in6 *) address)->sin6_addr, 16);
		return true;
	}
	return false;
}

static bool
contains(const Network *network, const Network *address)
{
	int			whole = network->bits / 8;
	int			rest = network->bits % 8;

	if (memcmp(network->bytes, address->bytes, whole) != 0)
		return false;
	return rest == 0 || ((network->bytes[whole] ^ address->bytes[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

bool
ingest_address_is_public(const struct sockaddr *sockaddr)
{
	Network		address;
	Network		network;

	if (!read_address(sockaddr, &address))
		return false;
	if (memcmp(address.bytes, v4_mapped, sizeof(v4_mapped)) != 0 && (address.bytes[0] & 0xe0) != 0x20)
		return false;
	for (int i = 0; special[i]; i++)
		if (parse_network(special[i], strlen(special[i]), &network) && contains(&network, &address))
			return false;
	return true;
}

bool
ingest_address_is_loopback(const struct sockaddr *sockaddr)
{
	static const unsigned char loopback6[16] = {[15] = 1};
	Network		address;

	if (!read_address(sockaddr, &address))
		return false;
	if (memcmp(address.bytes, loopback6, 16) == 0)
		return true;
	return memcmp(address.bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f", 13) == 0;
}

/* The next entry of a list, or NULL. */
static const char *
next_entry(const char **list, size_t *len)
{
	const char *entry;

	*list += strspn(*list, ", \t");
	entry = *list;
	*len = strcspn(entry, ", \t");
	*list += *len;
	return *len > 0 ? entry : NULL;
}

bool
ingest_address_is_listed(const struct sockaddr *sockaddr, const char *list)
{
	Network		address;
	Network		network;
	const char *entry;
	size_t		len;

	if (list == NULL || !read_address(sockaddr, &address))
		return false;
	while ((entry = next_entry(&list, &len)) != NULL)
		if (parse_network(entry, len, &network) && contains(&network, &address))
			return true;
	return false;
}

bool
ingest_address_check_list(const char *list, const char **bad)
{
	static char shown[64];
	Network		network;
	const char *entry;
	size_t		len;

	while (list && (entry = next_entry(&list, &len)) != NULL)
		if (!parse_network(entry, len, &network))
		{
			strlcpy(shown, entry, Min(len + 1, sizeof(shown)));
			*bad = shown;
			return false;
		}
	return true;
}
